use lb_tests::kernel::Kernel;
#[test]
fn count() {
    let mut kernel = Kernel::new(1);
    let info = kernel.program().info().expect("info");
    println!("verified {:?} xlated {:?}", info.verified_instruction_count(), info.size_translated());
}

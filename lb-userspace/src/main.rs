//! The `shunt` program. Everything it does is in the library.

fn main() -> lb_userspace::cli::exit::Exit {
    lb_userspace::cli::main()
}

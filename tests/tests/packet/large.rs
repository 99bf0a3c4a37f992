//! Frames that do not fit into one buffer. Test runs at tc take none; `families.rs` has them on links.

use lb_tests::{
    both_families,
    frame::{ACK, PSH, RST, SYN, Tcp, checksums},
    kernel::{Action, Kernel, at_tc, vip},
};

use crate::{connections::Connection, steering::client};

/// The payload that an MTU of 9000 allows; the kernel's test runs put bytes beyond a page into further
/// buffers.
const JUMBO: usize = 8940;

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

both_families!(jumbo_frames_go_both_ways);
fn jumbo_frames_go_both_ways() {
    if at_tc() {
        return;
    }
    let mut kernel = Kernel::new(1);
    let connection = Connection::open(&mut kernel, 1);
    // Each length around the end of the first buffer, and the greatest.
    for length in (3300..3700).step_by(13).chain([4096, 8191, JUMBO - 1, JUMBO]) {
        let data = payload(length);
        assert_eq!(connection.send(&mut kernel, ACK | PSH, &data), Action::Redirect, "{length}");
        assert_eq!(connection.reply(&mut kernel, ACK, &data), Action::Redirect, "{length}");
    }
}

both_families!(a_jumbo_frame_of_no_connection_is_cut_to_a_reset);
fn a_jumbo_frame_of_no_connection_is_cut_to_a_reset() {
    if at_tc() {
        return;
    }
    let mut kernel = Kernel::new(1);
    for (number, length) in [3000, 4096, JUMBO].into_iter().enumerate() {
        let from = client(number as u16);
        let sent = Tcp::new(from, vip(), ACK).numbers(5000, 7000).payload(&payload(length));
        let (action, out) = kernel.run(&sent.bytes());
        assert_eq!(action, Action::Tx, "{length}");
        let reset = Tcp::read(&out).expect("tcp");
        assert_eq!((reset.src, reset.dst, reset.seq, reset.flags), (vip(), from, 7000, RST));
        assert_eq!(checksums(&out), (true, true));
        assert!(out.len() <= 74, "{length}: {} bytes", out.len());
    }
}

both_families!(a_jumbo_frame_that_is_cut_is_dropped);
fn a_jumbo_frame_that_is_cut_is_dropped() {
    if at_tc() {
        return;
    }
    let mut kernel = Kernel::new(1);
    let mut frame = Tcp::new(client(1), vip(), SYN).payload(&payload(JUMBO)).bytes();
    frame.pop();
    assert_eq!(kernel.run(&frame).0, Action::Drop);
    assert_eq!(kernel.drops(lb_common::reason::Reason::Malformed), 1);
}

both_families!(a_head_is_mirrored_from_a_jumbo_frame);
fn a_head_is_mirrored_from_a_jumbo_frame() {
    if at_tc() {
        return;
    }
    let mut kernel = Kernel::new(1);
    let mut connection = Connection::open(&mut kernel, 1);
    // The request ends in another buffer.
    let mut request = b"GET / HTTP/1.1\r\nx: ".to_vec();
    request.resize(JUMBO - 4, b'a');
    request.extend(b"\r\n\r\n");
    assert_eq!(connection.send(&mut kernel, ACK | PSH, &request), Action::Redirect);
    connection.client_next = connection.client_next.wrapping_add(request.len() as u32);
    let mut response = b"HTTP/1.1 503 no\r\n\r\n".to_vec();
    response.resize(JUMBO, b'b');
    assert_eq!(connection.reply(&mut kernel, ACK | PSH, &response), Action::Redirect);
    let heads = kernel.heads();
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].data[..], response[..heads[0].data.len()]);
}

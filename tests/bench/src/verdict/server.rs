//! A backend that turns bad on command, and knows to the microsecond what reached it then.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lb_lab::{Host, Result, clock};
use lb_tests::scripted::{Line, Scripted};

/// A request that was answered with 500.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bad {
    /// When its head had been read.
    pub(super) arrived: Duration,
    /// When the answer was handed to the kernel, or just before: from here on it may be on its way.
    pub(super) left: Duration,
    /// It came from a client that keeps its connection.
    pub(super) kept: bool,
}

/// Ends when it is dropped.
pub(super) struct Server {
    book: Arc<Book>,
    _scripted: Scripted,
}

#[derive(Default)]
struct Book {
    fails: AtomicBool,
    /// Good answers to clients that keep their connection, and to the others.
    kept: AtomicU64,
    each: AtomicU64,
    bad: Mutex<Vec<Bad>>,
}

impl Server {
    pub(super) fn start(host: &Host, listen: SocketAddr) -> Result<Self> {
        let book = Arc::new(Book::default());
        let (shared, name) = (Arc::clone(&book), host.name().to_owned());
        let scripted = Scripted::start(host, listen, move |line| converse(line, &shared, &name))?;
        Ok(Self { book, _scripted: scripted })
    }

    /// From now on it answers everything with 500 but checks of its health; or nothing.
    pub(super) fn fail(&self, fails: bool) {
        self.book.fails.store(fails, Ordering::SeqCst);
    }

    /// Forgets what was bad.
    pub(super) fn forget(&self) {
        self.book.bad().clear();
    }

    /// Bad answers since, in the order in which they left.
    pub(super) fn bad(&self) -> Vec<Bad> {
        let mut bad = self.book.bad().clone();
        bad.sort_by_key(|bad| bad.left);
        bad
    }

    /// Good answers so far to clients that keep their connection, and to the others.
    pub(super) fn served(&self) -> (u64, u64) {
        (self.book.kept.load(Ordering::Relaxed), self.book.each.load(Ordering::Relaxed))
    }
}

impl Book {
    fn bad(&self) -> MutexGuard<'_, Vec<Bad>> {
        self.bad.lock().expect("nothing panics while it writes in the book")
    }
}

fn converse(line: &mut Line, book: &Book, name: &str) -> io::Result<()> {
    while let Some(head) = line.request()? {
        let arrived = clock::now();
        let kept = head.starts_with("GET /kept ");
        let counted = kept || head.starts_with("GET /work ");
        let fails = counted && book.fails.load(Ordering::SeqCst);
        let status = if fails { "500 Internal Server Error" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\nx-backend: {name}\r\ncontent-length: 2\r\n\r\nx\n");
        if fails {
            book.bad().push(Bad { arrived, left: clock::now(), kept });
        } else if counted {
            let served = if kept { &book.kept } else { &book.each };
            served.fetch_add(1, Ordering::Relaxed);
        }
        line.stream().write_all(answer.as_bytes())?;
        if head.to_ascii_lowercase().contains("\r\nconnection: close\r\n") {
            break;
        }
    }
    Ok(())
}

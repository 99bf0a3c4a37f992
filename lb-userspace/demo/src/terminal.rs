//! Single keys, and the screen that a terminal keeps for programs.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr},
};

/// The terminal while the demo has it. Given back when dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    pub(super) fn is_there() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Keys come one by one and unseen; Ctrl-C stays a signal.
    pub(super) fn take() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        let terminal = Self { before };
        // The other screen, without a cursor.
        write!(io::stdout(), "\x1b[?1049h\x1b[?25l")?;
        io::stdout().flush()?;
        Ok(terminal)
    }

    /// A key that was pressed, without waiting for one.
    pub(super) fn key(&self) -> Option<char> {
        let stdin = io::stdin();
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::ZERO).ok()? == 0 {
            return None;
        }
        let mut key = [0];
        // One byte at a time: what a buffer held back would not be seen by the next poll.
        let read = nix::unistd::read(stdin.as_fd(), &mut key).ok()?;
        (read == 1).then(|| char::from(key[0]))
    }

    /// Draws over the last frame without a flicker.
    pub(super) fn draw(&self, text: &str) {
        let lines: String = text.lines().map(|line| format!("{line}\x1b[K\r\n")).collect();
        let mut stdout = io::stdout();
        // A terminal that is gone sends a signal, which ends the demo.
        let _ = write!(stdout, "\x1b[H{lines}\x1b[J").and_then(|()| stdout.flush());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut stdout = io::stdout();
        let _ = write!(stdout, "\x1b[?25h\x1b[?1049l").and_then(|()| stdout.flush());
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

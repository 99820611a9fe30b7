//! The user's terminal: raw while a command in a container has it.

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal passes every key on; dropping this gives it back as it was.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// None: standard input is no terminal.
    pub fn enter() -> Option<Raw> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The size in the words of the resize stream.
pub fn size() -> Option<String> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    Some(format!("{{\"Width\":{},\"Height\":{}}}\n", size.ws_col, size.ws_row))
}

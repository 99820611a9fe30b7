//! Parameters of a command, as an API server hands them on to a kubelet.

use crate::api::Query;
use longshore_cri::exec::Streams;

/// Which streams are wanted. Anything but `1` is no; that all are no is for the caller to refuse.
pub fn streams(query: &Query) -> Streams {
    let on = |name: &str| query.get(name) == Some("1");
    Streams { stdin: on("input"), stdout: on("output"), stderr: on("error"), tty: on("tty") }
}

/// The command of `/run`: words between spaces.
pub fn command(query: &Query) -> Vec<String> {
    query.get("cmd").unwrap_or_default().split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_means_yes() {
        let s = streams(&Query::parse("input=1&output=1&error=true&tty=0"));
        assert_eq!(s, Streams { stdin: true, stdout: true, stderr: false, tty: false });
    }

    #[test]
    fn a_command_is_cut_at_spaces_and_never_seen_by_a_shell() {
        assert_eq!(command(&Query::parse("cmd=echo+$(id);ls")), ["echo", "$(id);ls"]);
        assert_eq!(command(&Query::parse("")), Vec::<String>::new());
    }
}

//! The answers of `/healthz` and what is below it.

use crate::api::Query;

/// A check by its name, and what is wrong.
pub type Check = (&'static str, Result<(), String>);

/// What the checks come to: a status and a text. `rest` is the path below; an unknown name is None.
pub fn answer(checks: &[Check], rest: &[String], query: &Query) -> Option<(u16, String)> {
    match rest {
        [] => Some(all(checks, query)),
        [name] => {
            let (_, found) = checks.iter().find(|(n, _)| n == name)?;
            Some(match found {
                Ok(()) => (200, "ok".into()),
                Err(why) => (500, format!("internal server error: {why}\n")),
            })
        }
        _ => None,
    }
}

fn all(checks: &[Check], query: &Query) -> (u16, String) {
    let excluded = query.all("exclude");
    let mut text = String::new();
    let mut failed = false;
    for (name, found) in checks {
        text += &match found {
            _ if excluded.iter().any(|e| e == name) => format!("[+]{name} excluded: ok\n"),
            Ok(()) => format!("[+]{name} ok\n"),
            Err(_) => {
                failed = true;
                // Why is in the log; who asks here need not be anybody.
                format!("[-]{name} failed: reason withheld\n")
            }
        };
    }
    match failed {
        true => (500, format!("{text}healthz check failed\n")),
        false if query.all("verbose").is_empty() => (200, "ok".into()),
        false => (200, format!("{text}healthz check passed\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(checks: &[Check], rest: &str, query: &str) -> Option<(u16, String)> {
        let rest: Vec<String> = rest.split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        answer(checks, &rest, &Query::parse(query))
    }

    #[test]
    fn health_reads_as_a_kubelets() {
        let well = [("ping", Ok(())), ("log", Ok(())), ("syncloop", Ok(()))];
        assert_eq!(ask(&well, "", ""), Some((200, "ok".into())));
        assert_eq!(ask(&well, "syncloop", ""), Some((200, "ok".into())));
        assert_eq!(ask(&well, "", "verbose"), Some((200, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n".into())));
        assert_eq!(ask(&well, "other", ""), None);
        assert_eq!(ask(&well, "ping/x", ""), None);
    }

    #[test]
    fn what_fails_is_named_and_its_reason_kept() {
        let ill = [("ping", Ok(())), ("syncloop", Err("secret reason".to_owned()))];
        let (status, text) = ask(&ill, "", "").unwrap();
        assert_eq!((status, text.as_str()), (500, "[+]ping ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n"));
        assert_eq!(ask(&ill, "", "exclude=syncloop"), Some((200, "ok".into())));
        assert_eq!(ask(&ill, "syncloop", ""), Some((500, "internal server error: secret reason\n".into())));
    }
}

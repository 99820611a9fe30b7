//! `$(NAME)` expansion: `$$` is a literal dollar, an unknown name stays as it is written.

/// Expands `text`; `look_up` gives the value of a name.
pub fn expand<'a>(text: &str, look_up: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|s| s.split_once(')')) {
            match look_up(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn expansion_follows_kubernetes() {
        let look_up = |n: &str| match n {
            "A" => Some("a"),
            "EMPTY" => Some(""),
            _ => None,
        };
        let cases = [
            ("$(A)", "a"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$A", "$A"),
            ("$(B)", "$(B)"),
            ("x$(EMPTY)y", "xy"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("$$", "$"),
            ("$()", "$()"),
            ("a$(A)$(A)b", "aaab"),
            ("$($(A))", "$($(A))"),
        ];
        for (text, want) in cases {
            assert_eq!(expand(text, look_up), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_unchanged(text in "[^$]{0,40}") {
            prop_assert_eq!(expand(&text, |_| Some("x")), text);
        }
    }
}

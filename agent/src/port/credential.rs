//! What a request says to tell who asks.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The protocol under which a browser, which cannot set a header, carries a token.
const IN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Of `Authorization`; None: there is none, or it is of another scheme.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Takes a token out of the protocols that a WebSocket offers: the token, and the protocols that are left. None: there
/// is none. An error: what is there is none, or it is all that is offered.
pub fn from_protocols(offered: &str) -> Option<Result<(String, String), &'static str>> {
    let all: Vec<&str> = offered.split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
    let (tokens, rest): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|p| p.starts_with(IN_PROTOCOL));
    let [token] = tokens[..] else {
        return (!tokens.is_empty()).then_some(Err("multiple base64.bearer.authorization tokens specified"));
    };
    let text = token.trim_start_matches(IN_PROTOCOL).trim_end_matches('=');
    let decoded = URL_SAFE_NO_PAD.decode(text).ok().and_then(|b| String::from_utf8(b).ok()).filter(|t| !t.is_empty());
    Some(match decoded {
        None => Err("invalid bearer token encoding"),
        Some(_) if rest.is_empty() => Err("missing additional subprotocol"),
        Some(token) => Ok((token, rest.join(", "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_the_header() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for none in ["", "abc", "Basic abc", "Bearer ", "Bearer"] {
            assert_eq!(bearer(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_token_is_read_from_the_protocols_and_taken_out_of_them() {
        let token = |t: &str| format!("{IN_PROTOCOL}{}", URL_SAFE_NO_PAD.encode(t));
        let offered = format!("v4.channel.k8s.io, {}", token("secret"));
        assert_eq!(from_protocols(&offered), Some(Ok(("secret".into(), "v4.channel.k8s.io".into()))));
        assert_eq!(from_protocols("v4.channel.k8s.io"), None);
        assert!(from_protocols(&token("secret")).unwrap().is_err(), "nothing is left to agree on");
        assert!(from_protocols(&format!("{IN_PROTOCOL}!!!, v4")).unwrap().is_err());
        assert!(from_protocols(&format!("{}, {}, v4", token("a"), token("b"))).unwrap().is_err());
    }
}

//! What is remembered of clients, and for how long.

use super::lab::{token, with_port};
use longshore::port::config::GoDuration;
use std::time::Duration;

#[test]
fn who_is_known_is_not_asked_about_again() {
    with_port(
        |_| {},
        async |port| {
            for _ in 0..5 {
                assert_eq!(port.get(&token("t-admin"), "/metrics/slis").await.status, 200);
                assert_eq!(port.get(&token("t-wrong"), "/metrics/slis").await.status, 401);
                assert_eq!(port.get(&token("t-reader"), "/configz").await.status, 403);
            }
            assert_eq!(port.staff.token_questions.get(), 3);
            // The admin's one; the reader's for configz and then for proxy.
            assert_eq!(port.staff.access_questions.get(), 3);
            // What was said holds until its time, and then what is said now.
            port.staff.changed_its_mind.set(true);
            assert_eq!(port.get(&token("t-admin"), "/metrics/slis").await.status, 200);
        },
    );
}

#[test]
fn without_a_time_to_live_everything_is_asked_each_time() {
    let none = GoDuration(Duration::ZERO);
    with_port(
        |c| {
            c.authentication.webhook.cache_ttl = none;
            c.authorization.webhook.cache_authorized_ttl = none;
            c.authorization.webhook.cache_unauthorized_ttl = none;
        },
        async |port| {
            assert_eq!(port.get(&token("t-admin"), "/metrics/slis").await.status, 200);
            port.staff.changed_its_mind.set(true);
            assert_eq!(port.get(&token("t-admin"), "/metrics/slis").await.status, 401);
        },
    );
}

#[test]
fn what_could_not_be_found_out_is_refused_and_not_remembered() {
    with_port(
        |_| {},
        async |port| {
            port.staff.away.set(true);
            assert_eq!(port.get(&token("t-admin"), "/pods").await.status, 401);
            let bob = port.member("bob", &["admins"]);
            let answer = port.get(&bob, "/pods").await;
            assert_eq!(answer.status, 500);
            assert!(answer.text().starts_with("Authorization error (user=bob"), "{}", answer.text());
            port.staff.away.set(false);
            assert_eq!(port.get(&token("t-admin"), "/pods").await.status, 200);
            assert_eq!(port.get(&bob, "/pods").await.status, 200);
        },
    );
}

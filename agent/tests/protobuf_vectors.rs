//! Replays `vectors/protobuf.json`: bodies as the clients of Kubernetes 1.36 write them, and the JSON they mean.
//!
//! A vector is `{name, body, want}`, the body in base64. The vectors named "every field of" set each field of a
//! kind to something of its own; the others are objects as people write them.
#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use longshore::api::protobuf;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    body: String,
    want: Value,
}

#[test]
fn bodies_of_clients_mean_the_json_that_they_would_have_sent() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors/protobuf.json")).unwrap();
    assert!(vectors.len() >= 40, "the vectors are there");
    for v in vectors {
        let body = base64::prelude::BASE64_STANDARD.decode(&v.body).unwrap();
        assert_eq!(protobuf::decode(&body).unwrap(), v.want, "{}", v.name);
        for end in 0..body.len() {
            if let Err(f) = protobuf::decode(&body[..end]) {
                assert_eq!(f.code, 400, "{} cut at {end}", v.name);
            }
        }
    }
}

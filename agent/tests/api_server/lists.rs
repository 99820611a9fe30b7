//! Lists in pieces, lists of versions that are gone, and deletion by selection.

use super::server::{MAPS, Server, map, parts, request, revision, with_server};
use serde_json::{Value, json};

const EVERYWHERE: &str = "/api/v1/configmaps";

async fn fill(server: &Server) {
    for namespace in ["a", "b", "c"] {
        server.namespace(namespace).await;
        for n in 0..8 {
            let mut object = map(&format!("m{n}"), n);
            object["metadata"]["labels"] = json!({"odd": (n % 2).to_string()});
            server.post(&format!("/api/v1/namespaces/{namespace}/configmaps"), &object).await.ok();
        }
    }
}

fn names(list: &Value) -> Vec<String> {
    let name = |o: &Value| format!("{}/{}", o["metadata"]["namespace"].as_str().unwrap(), o["metadata"]["name"].as_str().unwrap());
    list["items"].as_array().unwrap().iter().map(name).collect()
}

/// All pieces, one after the other.
async fn pieces(server: &Server, query: &str) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    let mut token = String::new();
    loop {
        let list = server.get(&format!("{EVERYWHERE}?limit=7{query}{token}")).await.ok();
        let next = list["metadata"]["continue"].as_str().map(|t| format!("&continue={t}"));
        out.push(list);
        match next {
            Some(next) => token = next,
            None => return out,
        }
    }
}

#[test]
fn a_list_in_pieces_is_the_list() {
    with_server(parts(), async |server| {
        fill(server).await;
        for query in ["", "&labelSelector=odd%3D1", "&fieldSelector=metadata.namespace%3Db"] {
            let whole = server.get(&format!("{EVERYWHERE}?{query}")).await.ok();
            let pieces = pieces(server, query).await;
            assert_eq!(pieces.iter().flat_map(names).collect::<Vec<_>>(), names(&whole), "{query}");
            assert!(pieces.iter().all(|p| names(p).len() <= 7 && revision(p) == revision(&whole)));
            if query.is_empty() {
                let left: Vec<&Value> = pieces.iter().map(|p| &p["metadata"]["remainingItemCount"]).collect();
                assert_eq!(left, [&json!(17), &json!(10), &json!(3), &Value::Null]);
            }
        }
    });
}

#[test]
fn all_pieces_show_what_was_there_when_the_list_began() {
    with_server(parts(), async |server| {
        fill(server).await;
        let whole = server.get(EVERYWHERE).await.ok();
        let first = server.get(&format!("{EVERYWHERE}?limit=7")).await.ok();
        server.delete("/api/v1/namespaces/a/configmaps/m0", &json!({})).await.ok();
        server.delete("/api/v1/namespaces/c/configmaps/m3", &json!({})).await.ok();
        server.put("/api/v1/namespaces/c/configmaps/m4", &map("m4", "new")).await.ok();
        server.post("/api/v1/namespaces/c/configmaps", &map("m9", 9)).await.ok();
        let token = first["metadata"]["continue"].as_str().unwrap();
        let rest = server.get(&format!("{EVERYWHERE}?continue={token}")).await.ok();
        let together: Vec<&Value> = [&first, &rest].iter().flat_map(|l| l["items"].as_array().unwrap()).collect();
        assert_eq!(together, whole["items"].as_array().unwrap().iter().collect::<Vec<_>>());
        assert_eq!(revision(&rest), revision(&first));
        let mut watch = server.watch(&format!("{EVERYWHERE}?watch=1&resourceVersion={}", revision(&rest))).await;
        let mut told = Vec::new();
        for _ in 0..4 {
            let event = watch.next().await.unwrap();
            told.push(format!("{} {}", event.what, event.name));
        }
        assert_eq!(told, ["DELETED m0", "DELETED m3", "MODIFIED m4", "ADDED m9"]);
    });
}

#[test]
fn a_list_at_a_past_version_is_what_was_there_then() {
    with_server(parts(), async |server| {
        let mut states = vec![server.get(EVERYWHERE).await.ok()];
        for (n, name) in ["a", "b", "a", "c", "b", "a"].into_iter().enumerate() {
            let path = format!("{MAPS}/{name}");
            if n == 4 {
                server.delete(&path, &json!({})).await.ok();
            } else if server.get(&path).await.status == 200 {
                server.put(&path, &map(name, n)).await.ok();
            } else {
                server.post(MAPS, &map(name, n)).await.ok();
            }
            states.push(server.get(EVERYWHERE).await.ok());
        }
        for state in &states {
            for query in ["&resourceVersionMatch=Exact", "&limit=500"] {
                let then = server.get(&format!("{EVERYWHERE}?resourceVersion={}{query}", revision(state))).await.ok();
                assert_eq!((&then["items"], revision(&then)), (&state["items"], revision(state)), "{query}");
            }
            let newer =
                server.get(&format!("{EVERYWHERE}?resourceVersion={}&resourceVersionMatch=NotOlderThan", revision(state))).await.ok();
            assert_eq!(newer, *states.last().unwrap());
        }
    });
}

#[test]
fn what_is_forgotten_is_told_with_a_way_to_go_on() {
    with_server(parts(), async |server| {
        fill(server).await;
        let first = server.get(&format!("{EVERYWHERE}?limit=7")).await.ok();
        server.post("/api/v1/namespaces/c/configmaps", &map("m9", 9)).await.ok();
        server.api.compact();
        let past = format!("{EVERYWHERE}?resourceVersion={}&resourceVersionMatch=Exact", revision(&first));
        let told = server.get(&past).await.refused(410, "Expired");
        assert_eq!(told, "The resourceVersion for the provided list is too old.");
        let token = first["metadata"]["continue"].as_str().unwrap();
        let refused = server.get(&format!("{EVERYWHERE}?limit=7&continue={token}")).await;
        let told = refused.refused(410, "Expired");
        assert!(told.starts_with("The provided continue parameter is too old to display a consistent list result."), "{told}");
        let resumed = refused.json()["metadata"]["continue"].as_str().unwrap().to_owned();
        let rest = server.get(&format!("{EVERYWHERE}?continue={resumed}")).await.ok();
        assert_eq!((names(&rest).len(), names(&rest)[0].as_str(), names(&rest)[17].as_str()), (18, "a/m7", "c/m9"));
        assert_eq!(revision(&rest), server.api.store().revision());
    });
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    with_server(parts(), async |server| {
        fill(server).await;
        let first = server.get(&format!("{EVERYWHERE}?limit=7")).await.ok();
        let (token, now) = (first["metadata"]["continue"].as_str().unwrap(), revision(&first));
        for (query, code, why) in [
            ("resourceVersionMatch=Exact".to_owned(), 422, "is forbidden unless resourceVersion is provided"),
            ("resourceVersion=0&resourceVersionMatch=Exact".to_owned(), 422, "is forbidden for resourceVersion \"0\""),
            (format!("resourceVersion={now}&resourceVersionMatch=Roughly"), 422, "supported values: \"Exact\", \"NotOlderThan\""),
            (format!("continue={token}&resourceVersion={now}&resourceVersionMatch=Exact"), 422, "is forbidden when continue is provided"),
            (format!("continue={token}&resourceVersion={now}"), 400, "specifying resource version is not allowed when using continue"),
            ("sendInitialEvents=true".to_owned(), 422, "sendInitialEvents is forbidden for list"),
        ] {
            let told = server.get(&format!("{EVERYWHERE}?{query}")).await.refused(code, if code == 422 { "Invalid" } else { "BadRequest" });
            assert!(told.contains(why), "{query}: {told}");
        }
        server.get(&format!("{EVERYWHERE}?continue={token}&resourceVersion=0")).await.ok();
    });
}

#[test]
fn tokens_and_versions_that_are_none_are_refused() {
    with_server(parts(), async |server| {
        let get = async |query: &str| server.get(&format!("{MAPS}?{query}")).await;
        assert!(get("continue=bm90aGluZw").await.refused(400, "BadRequest").contains("continue key is not valid"));
        assert!(get("resourceVersion=abc").await.refused(400, "BadRequest").contains("resourceVersion"));
        assert!(get("limit=-1").await.refused(400, "BadRequest").contains("limit"));
        assert!(get("labelSelector=a%20in").await.refused(400, "BadRequest").contains("parse"));
        assert!(get("watch=perhaps&resourceVersion=0").await.status == 200, "as without the word");
        let ahead = server.api.store().revision() + 1000;
        let early = get(&format!("resourceVersion={ahead}")).await;
        assert!(early.refused(504, "Timeout").contains("Too large resource version"));
        assert_eq!(early.headers["retry-after"], "1");
    });
}

#[test]
fn a_long_list_is_compressed_for_those_who_want_that() {
    with_server(parts(), async |server| {
        server.post(MAPS, &map("large", "x".repeat(200 << 10))).await.ok();
        let mut r = request("GET", MAPS, "", "");
        r.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
        let zipped = server.send(r).await;
        assert!(zipped.headers["content-encoding"] == "gzip" && zipped.headers["vary"] == "Accept-Encoding");
        assert!(zipped.body.len() < 10 << 10, "{} bytes", zipped.body.len());
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&zipped.body[..]), &mut text).unwrap();
        assert_eq!(text, server.get(MAPS).await.body);
    });
}

#[test]
fn a_collection_is_deleted_by_selection_and_told() {
    with_server(parts(), async |server| {
        fill(server).await;
        let path = "/api/v1/namespaces/a/configmaps";
        let gone = server.delete(&format!("{path}?labelSelector=odd%3D1"), &json!({})).await.ok();
        assert_eq!(names(&gone), ["a/m1", "a/m3", "a/m5", "a/m7"]);
        assert_eq!(names(&server.get(path).await.ok()), ["a/m0", "a/m2", "a/m4", "a/m6"]);
        assert_eq!(names(&server.get(EVERYWHERE).await.ok()).len(), 20);
    });
}

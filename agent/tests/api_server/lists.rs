//! Lists in pieces, lists of versions that are gone, and deletion by selection.

use super::server::{MAPS, Server, map, parts, revision, with_server};
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
fn a_watch_from_the_first_piece_tells_what_changed_between_the_pieces() {
    with_server(parts(), async |server| {
        fill(server).await;
        let first = server.get(&format!("{EVERYWHERE}?limit=7")).await.ok();
        server.delete("/api/v1/namespaces/a/configmaps/m0", &json!({})).await.ok();
        server.post("/api/v1/namespaces/c/configmaps", &map("m9", 9)).await.ok();
        let token = first["metadata"]["continue"].as_str().unwrap();
        let rest = server.get(&format!("{EVERYWHERE}?continue={token}")).await.ok();
        assert_eq!(names(&first)[0], "a/m0");
        assert_eq!(names(&rest).last().unwrap(), "c/m9");
        assert_eq!(revision(&rest), revision(&first));
        let mut watch = server.watch(&format!("{EVERYWHERE}?watch=1&resourceVersion={}", revision(&rest))).await;
        let (gone, come) = (watch.next().await.unwrap(), watch.next().await.unwrap());
        assert_eq!((gone.what.as_str(), gone.name.as_str(), come.what.as_str(), come.name.as_str()), ("DELETED", "m0", "ADDED", "m9"));
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
        server.post(MAPS, &map("m", 1)).await.ok();
        let before = server.api.store().revision() - 1;
        get(&format!("resourceVersion={before}&resourceVersionMatch=Exact")).await.refused(410, "Expired");
        get(&format!("resourceVersion={before}&resourceVersionMatch=NotOlderThan")).await.ok();
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

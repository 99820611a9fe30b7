//! Watches that cannot go on, and those that must.

use super::server::{MAPS, map, parts, request, revision, with_server};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[test]
fn what_is_forgotten_is_told_and_a_new_list_goes_on() {
    with_server(parts(), async |server| {
        let old = revision(&server.post(MAPS, &map("a", 1)).await.ok());
        let mut running = server.watch(&format!("{MAPS}?watch=1&resourceVersion={old}")).await;
        server.put(&format!("{MAPS}/a"), &map("a", 2)).await.ok();
        assert_eq!(running.next().await.unwrap().object["data"]["v"], "2");
        server.api.compact();
        let mut late = server.watch(&format!("{MAPS}?watch=1&resourceVersion={old}")).await;
        let error = late.next().await.unwrap();
        assert_eq!((error.what.as_str(), &error.object["code"], &error.object["reason"]), ("ERROR", &json!(410), &json!("Expired")));
        assert_eq!(late.next().await, None, "and the watch is over");
        let list = server.get(MAPS).await.ok();
        let mut again = server.watch(&format!("{MAPS}?watch=1&resourceVersion={}", revision(&list))).await;
        server.put(&format!("{MAPS}/a"), &map("a", 3)).await.ok();
        for watch in [&mut running, &mut again] {
            assert_eq!(watch.next().await.unwrap().object["data"]["v"], "3", "who had seen all goes on");
        }
    });
}

#[test]
fn a_watch_that_begins_with_what_is_there_marks_the_end_of_it() {
    with_server(parts(), async |server| {
        for name in ["b", "a"] {
            server.post(MAPS, &map(name, 1)).await.ok();
        }
        let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
        let mut watch = server.watch(&format!("{MAPS}?{query}")).await;
        let (a, b, mark) = (watch.next().await.unwrap(), watch.next().await.unwrap(), watch.next().await.unwrap());
        assert_eq!((a.name.as_str(), b.name.as_str(), mark.what.as_str()), ("a", "b", "BOOKMARK"));
        assert_eq!(mark.object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        assert_eq!(mark.revision, server.api.store().revision());
        let deleted = server.delete(&format!("{MAPS}/a"), &json!({})).await;
        assert_eq!((deleted.status, watch.next().await.unwrap().what.as_str()), (200, "DELETED"));
    });
}

#[test]
fn a_watch_ends_when_it_was_to_end() {
    with_server(parts(), async |server| {
        let mut watch = server.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true")).await;
        let last = watch.next().await.unwrap();
        assert_eq!((last.what.as_str(), last.revision), ("BOOKMARK", server.api.store().revision()));
        assert_eq!(watch.next().await, None);
    });
}

#[test]
fn a_reader_that_takes_nothing_is_let_go_while_others_go_on() {
    let mut parts = parts();
    parts.limits.stalled = Duration::from_millis(100);
    with_server(parts, async |server| {
        let from = revision(&server.post(MAPS, &map("m", "")).await.ok());
        let mut fast = server.watch(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
        let mut slow = server.connect().await;
        let get = format!("GET {MAPS}?watch=1&resourceVersion={from} HTTP/1.1\r\nhost: node\r\n\r\n");
        slow.write_all(get.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        slow.read_exact(&mut head).await.unwrap();
        assert_eq!((&head, server.api.watchers()), (b"HTTP/1.1 200", 2));
        // More than any buffer on the way holds, in pieces that the history keeps a while.
        let mut told = Vec::new();
        let mut turn = 0;
        while server.api.watchers() == 2 {
            turn += 1;
            let object = map("m", format!("{turn}-{}", "x".repeat(200 << 10)));
            let written = revision(&server.put(&format!("{MAPS}/m"), &object).await.ok());
            told.push((written, fast.next().await.unwrap().revision));
        }
        assert!(told.iter().all(|(written, seen)| written == seen));
        server.put(&format!("{MAPS}/m"), &map("m", "small")).await.ok();
        assert_eq!(fast.next().await.unwrap().object["data"]["v"], "small");
        // What was under way to the slow one ends in the middle of its answer, and the connection with it, though nobody reads.
        loop {
            match slow.try_write(b"x") {
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => break,
                Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => panic!("{e}"),
                _ => tokio::task::yield_now().await,
            }
        }
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        assert!(rest.len() < turn * (200 << 10), "it was not buffered without end");
    });
}

#[test]
fn many_watchers_of_one_write_all_see_it() {
    with_server(parts(), async |server| {
        let mut watches = Vec::new();
        for n in 0..200 {
            let path =
                if n % 2 == 0 { format!("{MAPS}?watch=1") } else { "/api/v1/configmaps?watch=1&fieldSelector=metadata.name%3Dm".into() };
            watches.push(server.watch(&path).await);
        }
        assert_eq!(server.api.watchers(), 200);
        let written = revision(&server.post(MAPS, &map("m", 1)).await.ok());
        for watch in &mut watches {
            assert_eq!(watch.next().await.unwrap().revision, written);
        }
        drop(watches);
        while server.api.watchers() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_watch_in_another_form_tells_the_same_changes() {
    with_server(parts(), async |server| {
        let accept = async |accept: &str| {
            let mut r = request("GET", MAPS, "", "");
            r.headers_mut().insert("accept", accept.parse().unwrap());
            server.send(r).await
        };
        server.post(MAPS, &map("m", 1)).await.ok();
        let table: Value = accept("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.ok();
        assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("m")));
        let metadata = accept("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await.ok();
        assert_eq!((&metadata["kind"], &metadata["items"][0]["data"]), (&json!("PartialObjectMetadataList"), &Value::Null));
        for unknown in ["application/vnd.kubernetes.protobuf", "text/html", "application/json;as=Table;v=v9"] {
            assert!(accept(unknown).await.refused(406, "NotAcceptable").contains(unknown));
        }
        accept("application/vnd.kubernetes.protobuf,application/json").await.ok();
    });
}

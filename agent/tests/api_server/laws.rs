//! The laws of the store, over real connections: one history, which everybody sees.

use super::server::{Dice, Event, MAPS, Server, map, parts, revision, with_server};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Who marks the end of a history.
const END: &str = "zz-end";

type State = BTreeMap<String, Value>;

/// What a write was answered with.
struct Done {
    revision: u64,
    value: String,
}

/// Random writes on few names, so that writers meet.
async fn write(server: &Server, seed: u64, times: usize) -> Vec<Done> {
    let mut dice = Dice(seed | 1);
    let mut done = Vec::new();
    for turn in 0..times {
        let name = format!("m{}", dice.below(6));
        let value = format!("{seed}-{turn}");
        let mut object = map(&name, &value);
        object["metadata"]["labels"] = json!({"side": if dice.below(2) == 0 { "a" } else { "b" }});
        let path = format!("{MAPS}/{name}");
        let answer = match dice.below(4) {
            0 => server.post(MAPS, &object).await,
            1 => server.put(&path, &object).await,
            2 => server.patch(&path, &json!({"data": {"v": &value}, "metadata": {"labels": {"side": "b"}}})).await,
            _ => server.delete(&path, &json!({})).await,
        };
        match answer.status {
            200 | 201 if answer.json()["kind"] == "ConfigMap" => done.push(Done { revision: revision(&answer.json()), value }),
            200 | 404 | 409 => {}
            other => panic!("{other} {:?}", answer.body),
        }
    }
    done
}

/// The changes of a history up to its end.
async fn follow(server: &Server, from: u64, query: &str, mut dice: Option<Dice>) -> Vec<Event> {
    let mut seen: Vec<Event> = Vec::new();
    let mut last = from;
    loop {
        let mut watch = server.watch(&format!("{MAPS}?watch=1&resourceVersion={last}{query}")).await;
        // One that hangs up now and then goes on from what it saw last.
        let mut left = dice.as_mut().map(|d| d.below(20));
        while left != Some(0) {
            let event = watch.next().await.expect("the watch lasts");
            assert!(event.revision > last, "{event:?} comes after {last}");
            last = event.revision;
            let ends = event.name == END;
            seen.push(event);
            if ends {
                return seen;
            }
            left = left.map(|n| n - 1);
        }
        watch.end();
    }
}

async fn list(server: &Server, query: &str) -> (u64, State) {
    let list = server.get(&format!("{MAPS}?{query}")).await.ok();
    let items = list["items"].as_array().unwrap().iter();
    (revision(&list), items.map(|o| (o["metadata"]["name"].as_str().unwrap().to_owned(), o.clone())).collect())
}

/// Applies changes, and checks that each fits on what was there.
fn fold(state: &mut State, events: &[Event]) {
    for e in events {
        let there = state.contains_key(&e.name);
        assert_eq!(there, e.what != "ADDED", "{e:?}");
        match e.what.as_str() {
            "ADDED" | "MODIFIED" => state.insert(e.name.clone(), e.object.clone()),
            "DELETED" => state.remove(&e.name),
            other => panic!("{other}"),
        };
    }
}

/// What a watcher with a selector is to see of a history.
fn selected(history: &[Event], begin: &State, takes: impl Fn(&Value) -> bool) -> Vec<(u64, String)> {
    let mut state = begin.clone();
    let mut out = Vec::new();
    for e in history {
        let before = state.get(&e.name).is_some_and(&takes);
        let after = e.what != "DELETED" && takes(&e.object);
        match (before, after) {
            (false, true) => out.push((e.revision, "ADDED".to_owned())),
            (true, true) => out.push((e.revision, "MODIFIED".to_owned())),
            (true, false) => out.push((e.revision, "DELETED".to_owned())),
            (false, false) => {}
        }
        fold(&mut state, std::slice::from_ref(e));
    }
    out
}

fn brief(events: &[Event]) -> Vec<(u64, String)> {
    events.iter().map(|e| (e.revision, e.what.clone())).collect()
}

fn side_a(object: &Value) -> bool {
    object["metadata"]["labels"]["side"] == "a" || object["metadata"]["name"] == END
}

#[test]
fn every_watcher_sees_the_one_history_without_gap_or_repetition() {
    with_server(parts(), async |server| {
        let (from, begin) = list(server, "").await;
        let writers = async {
            let done = join_all((1..=8).map(|seed| write(server, seed * 7919, 40))).await;
            let mut end = map(END, "");
            end["metadata"]["labels"] = json!({"side": "a"});
            server.post(MAPS, &end).await.ok();
            done
        };
        // Each begins when some writes have been made.
        let late = async |seed: u64| {
            while server.api.store().revision() < from + seed * 20 {
                tokio::task::yield_now().await;
            }
            let (at, state) = list(server, "").await;
            (at, state, follow(server, at, "", Some(Dice(seed | 1))).await)
        };
        let select = follow(server, from, "&labelSelector=side%3Da", None);
        let broken = follow(server, from, "", Some(Dice(77)));
        let (done, history, select, broken, late) =
            tokio::join!(writers, follow(server, from, "", None), select, broken, join_all((1..=4).map(late)));

        let mut state = begin.clone();
        fold(&mut state, &history);
        assert_eq!(state, list(server, "").await.1, "the history ends where a list is");
        assert_eq!(broken, history, "one that hangs up misses nothing");
        assert_eq!(brief(&select), selected(&history, &begin, side_a));
        for (at, state, events) in late {
            let split = history.iter().position(|e| e.revision > at).unwrap();
            let mut there = begin.clone();
            fold(&mut there, &history[..split]);
            assert_eq!(there, state, "a list is the history up to its revision");
            assert_eq!(events, history[split..]);
        }
        let told: BTreeMap<u64, &Event> = history.iter().map(|e| (e.revision, e)).collect();
        for writer in done {
            assert!(!writer.is_empty());
            for write in writer {
                assert_eq!(told[&write.revision].object["data"]["v"], write.value.as_str(), "what was acknowledged is in the history");
            }
        }
    });
}

#[test]
fn of_updates_on_one_revision_exactly_one_wins() {
    with_server(parts(), async |server| {
        server.post(MAPS, &map("m", 0)).await.ok();
        let path = format!("{MAPS}/m");
        for round in 0..10 {
            let current = server.get(&path).await.ok();
            let update = async |n: usize| {
                let mut object = current.clone();
                object["data"]["v"] = format!("{round}-{n}").into();
                server.put(&path, &object).await
            };
            let answers = join_all((0..16).map(update)).await;
            let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 200);
            assert_eq!(won.len(), 1, "round {round}");
            lost.iter().for_each(|a| assert!(a.refused(409, "Conflict").contains("the object has been modified")));
            assert_eq!(server.get(&path).await.ok(), won[0].ok());
        }
    });
}

#[test]
fn counting_with_retries_loses_no_step() {
    with_server(parts(), async |server| {
        server.post(MAPS, &map("m", 0)).await.ok();
        let path = format!("{MAPS}/m");
        let count = async |_| {
            for _ in 0..10 {
                loop {
                    let mut object = server.get(&path).await.ok();
                    let next = object["data"]["v"].as_str().unwrap().parse::<u32>().unwrap() + 1;
                    object["data"]["v"] = next.to_string().into();
                    if server.put(&path, &object).await.status == 200 {
                        break;
                    }
                }
            }
        };
        join_all((0..6).map(count)).await;
        assert_eq!(server.get(&path).await.ok()["data"]["v"], "60");
    });
}

#[test]
fn of_creations_of_one_name_exactly_one_wins() {
    with_server(parts(), async |server| {
        for round in 0..10 {
            let objects: Vec<Value> = (0..8).map(|n| map(&format!("m{round}"), n)).collect();
            let answers = join_all(objects.iter().map(|o| server.post(MAPS, o))).await;
            let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 201);
            assert_eq!(won.len(), 1, "round {round}");
            lost.iter().for_each(|a| assert!(a.refused(409, "AlreadyExists").contains("already exists")));
            assert_eq!(server.get(&format!("{MAPS}/m{round}")).await.ok(), won[0].ok());
        }
    });
}

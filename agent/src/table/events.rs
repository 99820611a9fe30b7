//! Events in rows.

use super::Table;
use super::age::{age, human};
use crate::api::EventObject;
use crate::time::Wall;

pub fn table(events: &[EventObject], now: Wall) -> Table {
    let mut t = Table::new(&["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE", "SUBOBJECT", "SOURCE", "FIRST SEEN", "COUNT", "NAME"], 5);
    t.rows = events.iter().map(|e| row(e, now)).collect();
    t
}

fn row(e: &EventObject, now: Wall) -> Vec<String> {
    let o = &e.involved_object;
    vec![
        age(e.last_timestamp, now),
        e.kind.clone(),
        e.reason.clone(),
        format!("{}/{}", o.kind.to_lowercase(), o.name),
        e.message.trim().replace('\n', " "),
        o.field_path.clone(),
        format!("{}, {}", e.source.component, e.source.host),
        age(e.first_timestamp, now),
        e.count.to_string(),
        e.metadata.name.clone(),
    ]
}

/// `5s (x3 over 2m)`: when it last happened and how often since when.
pub fn how_often(e: &EventObject, now: Wall) -> String {
    let last = age(e.last_timestamp, now);
    match e.first_timestamp {
        Some(first) if e.count > 1 => format!("{last} (x{} over {})", e.count, human(now.seconds() - first.seconds())),
        _ => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_events_tell_how_often() {
        let at = |s| Some(Wall::from_seconds(s));
        let mut e = EventObject { first_timestamp: at(0), last_timestamp: at(175), count: 1, ..EventObject::default() };
        let now = Wall::from_seconds(180);
        assert_eq!(how_often(&e, now), "5s");
        e.count = 4;
        assert_eq!(how_often(&e, now), "5s (x4 over 3m)");
    }

    #[test]
    fn an_event_fits_on_one_line() {
        let e = EventObject { message: "first\nsecond\n".into(), ..EventObject::default() };
        assert_eq!(row(&e, Wall::default())[4], "first second");
    }
}

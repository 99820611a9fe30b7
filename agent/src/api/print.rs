//! Objects as `Table` and as metadata alone (meta.k8s.io/v1), as clients ask for them to print.
//!
//! Tests: at the end of this file.

use super::resource::{EVENTS, Id, PODS, SERVICES, SLICES};
use crate::table::{self, Table};
use crate::time::Wall;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How a client wants its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Whole,
    Table,
    Metadata,
    /// Discovery in one piece.
    Aggregated,
}

impl Form {
    /// Reads `Accept`: the first of its choices that there is. None: there is none of them.
    pub fn of(accept: &str) -> Option<Form> {
        if accept.trim().is_empty() {
            return Some(Form::Whole);
        }
        accept.split(',').find_map(|choice| {
            let mut parts = choice.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let has = |p: &str| parameters.contains(&p);
            if !matches!(kind, "application/json" | "*/*" | "application/*") {
                return None;
            }
            match parameters.iter().find_map(|p| p.strip_prefix("as=")) {
                None => Some(Form::Whole),
                Some("Table") if has("v=v1") => Some(Form::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") if has("v=v1") => Some(Form::Metadata),
                Some("APIGroupDiscoveryList") if has("v=v2") => Some(Form::Aggregated),
                Some(_) => None,
            }
        })
    }
}

/// What of each object goes into a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub fn parse(text: Option<&str>) -> Include {
        match text {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        }
    }
}

pub fn table(id: Id, objects: Vec<Value>, revision: &str, include: Include, headers: bool, now: Wall) -> Value {
    let t = rows(id, &objects, now);
    let definitions: Vec<Value> = t.columns.iter().map(|c| column(c.name, c.wide)).collect();
    // Counts are numbers on the wire.
    let counts: Vec<bool> = t.columns.iter().map(|c| matches!(c.name, "DATA" | "SECRETS" | "COUNT")).collect();
    let cell = |(text, count): (String, &bool)| match text.parse::<i64>() {
        Ok(n) if *count => n.into(),
        _ => Value::from(text),
    };
    let row = |(cells, object): (Vec<String>, Value)| {
        let cells: Vec<Value> = cells.into_iter().zip(&counts).map(cell).collect();
        let mut row = json!({ "cells": cells });
        match include {
            Include::None => {}
            Include::Metadata => row["object"] = metadata(&object),
            Include::Object => row["object"] = object,
        }
        row
    };
    let rows: Vec<Value> = t.rows.into_iter().zip(objects).map(row).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision},
        "columnDefinitions": if headers { definitions.into() } else { Value::Null }, "rows": rows})
}

fn rows(id: Id, objects: &[Value], now: Wall) -> Table {
    match id.kept() {
        PODS => table::pods::table(&typed(objects), now),
        SERVICES => table::services::table(&typed(objects), now),
        EVENTS => table::events::table(&typed(objects), now),
        SLICES => table::endpoints::slices(&typed(objects), now),
        _ => table::objects::table(id.row().kind, objects, now),
    }
}

fn typed<T: DeserializeOwned + Default>(objects: &[Value]) -> Vec<T> {
    objects.iter().map(|o| crate::typed::read(o).unwrap_or_default()).collect()
}

/// `LAST SEEN` is called `Last Seen` here; clients write it in capitals.
fn column(name: &str, wide: bool) -> Value {
    let mut title = String::new();
    let mut start = true;
    for c in name.chars() {
        title.push(if start { c } else { c.to_ascii_lowercase() });
        start = matches!(c, ' ' | '-' | '(');
    }
    let format = if name == "NAME" { "name" } else { "" };
    json!({"name": title.replace("Ip", "IP"), "type": "string", "format": format, "description": "", "priority": i32::from(wide)})
}

/// An object's metadata, as an object of its own.
pub fn metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

pub fn metadata_list(objects: &[Value], revision: &str) -> Value {
    let items: Vec<Value> = objects.iter().map(metadata).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision}, "items": items})
}

#[cfg(test)]
mod tests {
    use super::super::resource::CONFIG_MAPS;
    use super::*;

    #[test]
    fn the_first_choice_that_there_is_counts() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(Form::of(kubectl), Some(Form::Table));
        assert_eq!(Form::of("application/vnd.kubernetes.protobuf,application/json"), Some(Form::Whole));
        assert_eq!(
            Form::of("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"),
            Some(Form::Aggregated)
        );
        assert_eq!(Form::of("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(Form::of("*/*"), Some(Form::Whole));
    }

    #[test]
    fn rows_carry_their_metadata() {
        let object = json!({"metadata": {"name": "a", "namespace": "n"}, "data": {"x": "y"}});
        let t = table(CONFIG_MAPS, vec![object], "7", Include::Metadata, true, Wall::from_seconds(0));
        assert_eq!(t["rows"][0]["cells"], json!(["a", 1, "<unknown>"]));
        assert_eq!(t["rows"][0]["object"]["metadata"]["namespace"], "n");
        assert_eq!(t["columnDefinitions"][1]["name"], "Data");
        assert_eq!(t["metadata"]["resourceVersion"], "7");
    }
}

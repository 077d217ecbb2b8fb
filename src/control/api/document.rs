//! The OpenAPI document: made of [the list](super::list) and of the types that are read and answered.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{RefOr, Schema},
};

use super::{
    list::{Endpoint, Sent, Shape, Who, all},
    view::Refused,
};
use crate::control::store::Role;

/// What a refusal is for, by status.
const REFUSALS: [(u16, &str); 13] = [
    (400, "The request is not what this document says"),
    (401, "Nobody asks: send an operator's token"),
    (403, "Whoever asks may not"),
    (404, "There is no such thing, for whoever asks"),
    (409, "It does not go together with what is there"),
    (413, "The body is too large"),
    (415, "The body is not JSON"),
    (422, "It is well formed, and no rule allows it"),
    (429, "Too many attempts from this address failed"),
    (500, "Something went wrong here; the log says more"),
    (503, "The store cannot be used: nothing was changed, unless the code is outcome_unknown"),
    (507, "There is no room left in the store: nothing was changed"),
    (408, "The request did not arrive in time"),
];
/// Those of them that only what changes something can meet with.
const OF_CHANGES: [u16; 4] = [409, 415, 422, 507];

/// The document, as text.
pub fn text() -> String {
    format!("{:#}\n", document())
}

/// The document.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    add(&mut schemas, vec![(Refused::name().into_owned(), Refused::schema())]);
    for endpoint in all() {
        let shapes = match endpoint.body {
            Some(Sent::Always(shape) | Sent::Perhaps(shape)) => vec![shape, endpoint.answer],
            None => vec![endpoint.answer],
        };
        for shape in shapes {
            let mut parts = vec![((shape.name)().into_owned(), (shape.schema)())];
            (shape.parts)(&mut parts);
            add(&mut schemas, parts);
        }
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.to_ascii_lowercase()] = operation(&endpoint);
    }
    let responses: Map<String, Value> =
        REFUSALS.iter().map(|(status, what)| (format!("Refused{status}"), refusal(*status, what))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keyside management API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "Mint, list, rotate and revoke API keys. Operators ask with a token; a key with `keys:manage` asks by way of \
                 a sidecar, as it asks the API behind it, and sees, mints and revokes keys of its own owner and environment. \
                 Operators have roles: {}",
                Role::table()
            ),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "operatorToken": [] }],
        "tags": [
            { "name": "keys", "description": "API keys" }, { "name": "owners", "description": "Whom keys act for" },
            { "name": "operators", "description": "Who may use the control plane" },
            { "name": "watch", "description": "What there is, and what was done" },
        ],
        "paths": paths,
        "components": {
            "securitySchemes": { "operatorToken": {
                "type": "http", "scheme": "bearer", "description": "A token of an operator: `kop_…`"
            } },
            "responses": responses,
            "schemas": schemas,
        },
    })
}

fn add(schemas: &mut BTreeMap<String, Value>, parts: Vec<(String, RefOr<Schema>)>) {
    for (name, schema) in parts {
        let mut schema = serde_json::to_value(schema).unwrap_or_default();
        if let Value::Object(object) = &mut schema {
            // The word of OpenAPI 3.0; 3.1 takes that of JSON Schema, a list.
            if let Some(example) = object.shift_remove("example") {
                object.insert("examples".to_owned(), json!([example]));
            }
            for property in object.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
                // What is left out is left out: it has no value.
                if let (_, Value::Object(property)) = property
                    && property.get("default").is_some_and(Value::is_null)
                {
                    property.shift_remove("default");
                }
            }
        }
        schemas.insert(name, schema);
    }
}

fn operation(endpoint: &Endpoint) -> Value {
    let may = match endpoint.who {
        Who::Operator(role) => format!("For operators of the role {}.", role.as_str()),
        Who::OrKey(role) => format!("For operators of the role {}, and for keys with `keys:manage`.", role.as_str()),
    };
    let room = endpoint.path.split('/').nth(2).map(|room| if room == "identify" { "keys" } else { room });
    let tag = room.filter(|room| ["keys", "owners", "operators"].contains(room)).unwrap_or("watch");
    let named = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = named.map(|name| in_path(endpoint.path, name)).collect();
    parameters.extend(endpoint.parameters.iter().map(|name| parameter(name)));
    let changes = endpoint.method != "GET";
    let mut responses = Map::new();
    responses.insert(endpoint.status.to_string(), answer(endpoint.summary, endpoint.answer));
    if endpoint.parameters.contains(&"Idempotency-Key") {
        let mut again = answer(
            "It was made before, by a request with the same Idempotency-Key: no secret is answered",
            endpoint.answer,
        );
        again["headers"] = json!({ "Idempotency-Replayed": { "description": "true", "schema": { "const": "true" } } });
        responses.insert("200".to_owned(), again);
    }
    for (status, _) in REFUSALS.iter().filter(|(status, _)| changes || !OF_CHANGES.contains(status)) {
        responses.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/Refused{status}") }));
    }
    if endpoint.method == "GET" && (endpoint.parameters.contains(&"cursor") || endpoint.parameters.contains(&"from")) {
        responses.insert("422".to_owned(), json!({ "$ref": "#/components/responses/Refused422" }));
    }
    let mut operation = json!({
        "operationId": endpoint.id, "tags": [tag], "summary": endpoint.summary, "description": may,
        "parameters": parameters, "responses": responses,
    });
    if let Some(sent) = endpoint.body {
        let (shape, required) = match sent {
            Sent::Always(shape) => (shape, true),
            Sent::Perhaps(shape) => (shape, false),
        };
        operation["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": reference(shape) } } });
    }
    operation
}

fn reference(shape: Shape) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", (shape.name)()) })
}

fn answer(what: &str, shape: Shape) -> Value {
    let schema = json!({
        "type": "object", "required": ["success", "data"],
        "properties": { "success": { "const": true }, "data": reference(shape) },
    });
    json!({ "description": what, "content": { "application/json": { "schema": schema } } })
}

fn refusal(status: u16, what: &str) -> Value {
    let schema = json!({
        "type": "object", "required": ["success", "error"],
        "properties": { "success": { "const": false }, "error": { "$ref": "#/components/schemas/Refused" } },
    });
    let mut refusal = json!({ "description": what, "content": { "application/json": { "schema": schema } } });
    if matches!(status, 429 | 503) {
        refusal["headers"] = json!({ "Retry-After": { "description": "Seconds", "schema": { "type": "integer" } } });
    }
    refusal
}

fn in_path(path: &str, name: &str) -> Value {
    let what = match (path.split('/').nth(2), name) {
        (Some("keys"), _) => "The id of a key",
        (Some("owners"), _) => "The id of an owner",
        (Some("receipts"), _) => "The number of a revision",
        (Some("sidecars"), _) => "The name that the sidecar gives itself",
        (_, "id") => "The id of a token",
        _ => "The name of an operator",
    };
    let schema = match name {
        "revision" => json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX }),
        _ => json!({ "type": "string", "minLength": 1, "maxLength": 200 }),
    };
    json!({ "name": name, "in": "path", "required": true, "description": what, "schema": schema })
}

fn parameter(name: &str) -> Value {
    let text = || json!({ "type": "string" });
    let (place, what, schema) = match name {
        "Idempotency-Key" => (
            "header",
            "The same request with the same key is done once, and answered again without the secret; for a day",
            json!({ "type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$" }),
        ),
        "search" => ("query", "A part of the name, the id, the prefix or the owner", text()),
        "owner" => ("query", "Of this owner", text()),
        "environment" => ("query", "Of this environment", json!({ "type": "string", "enum": ["live", "test"] })),
        "status" => (
            "query",
            "Of this status",
            json!({ "type": "string", "enum": ["active", "revoked", "expired", "suspended"] }),
        ),
        "permission" => ("query", "With this permission", text()),
        "minted_by" => (
            "query",
            "Minted by this one: as the audit log names them, such as `key:key_…`; or an id or a name alone",
            text(),
        ),
        "unused_for" => (
            "query",
            "Active, and not used for so long, such as 90d",
            json!({ "type": "string", "pattern": "^(0|[0-9]{1,5}[smhdw])$" }),
        ),
        "cursor" => ("query", "The `next` of the page before", text()),
        "after" => ("query", "The `next` of the page before", text()),
        "limit" => {
            ("query", "How many on a page", json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }))
        }
        "wait" => (
            "query",
            "How long to wait for the sidecars, in seconds, 30 at most",
            json!({ "type": "string", "pattern": "^([0-9]|[12][0-9]|30)s?$", "default": "2s" }),
        ),
        "purge" => ("query", "Remove the row: the name has to be sent", json!({ "type": "boolean", "default": false })),
        "actor" => ("query", "Done by this one", text()),
        "action" => ("query", "This action, or those that begin with it and a dot, such as `key`", text()),
        "subject" => ("query", "Done to this one", text()),
        "before" => (
            "query",
            "Only entries before this number",
            json!({ "type": "integer", "minimum": 1, "maximum": i64::MAX }),
        ),
        "from" => (
            "query",
            "Entries from this number on, in their order; takes no filter",
            json!({ "type": "integer", "minimum": 1, "maximum": i64::MAX }),
        ),
        _ => ("query", "", text()),
    };
    json!({ "name": name, "in": place, "required": false, "description": what, "schema": schema })
}

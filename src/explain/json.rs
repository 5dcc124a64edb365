//! An explanation for a program: one JSON object. What is in it stays; what comes later is added.

use serde_json::{Value, json};

use super::handshake::Handshake;
use super::setting::Setting;
use super::upstream::Believed;
use super::{End, Explanation, Failure, Named, Search, Step, Upgrade, Upstream};

/// Writes an explanation.
pub(super) fn json(explanation: &Explanation) -> String {
    let upstream = match &explanation.end {
        End::Upstream(to) => upstream(to),
        _ => Value::Null,
    };
    let timeouts: Vec<Value> = explanation.timeouts.iter().map(timeout).collect();
    let steps: Vec<Value> = explanation.steps.iter().map(step).collect();
    let object = json!({
        "file": explanation.file,
        "request": text(&explanation.asked.head),
        "added": explanation.asked.added,
        "notes": explanation.notes,
        "listener": explanation.listener,
        "tls": explanation.tls.as_ref().map(handshake),
        "server": {
            "name": explanation.server.named.name,
            "line": explanation.server.named.line,
            "why": explanation.server.why,
        },
        "steps": steps,
        "location": explanation.location.as_ref().map(|location| json!({
            "path": location.name,
            "line": location.line,
        })),
        "upgrade": explanation.upgrade.as_ref().map(upgrade),
        "timeouts": timeouts,
        "answer": answer(&explanation.end),
        "upstream": upstream,
    });
    format!("{object:#}\n")
}

/// Bytes that are no UTF-8 have no place in JSON.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn handshake(tls: &Handshake) -> Value {
    let certificates: Vec<Value> = tls
        .certificates
        .iter()
        .map(|certificate| {
            json!({
                "from": certificate.from.name,
                "line": certificate.from.line,
                "names": certificate.names,
                "until": certificate.until,
            })
        })
        .collect();
    json!({
        "sni": tls.sni,
        "server": { "name": tls.server.name, "line": tls.server.line, "why": tls.why },
        "certificates": certificates,
        "protocols": tls.protocols,
        "verify_client": tls.verify_client.name,
        "verify_client_line": tls.verify_client.line,
    })
}

fn named(kind: &str, of: &Named) -> Value {
    json!({ kind: of.name, "line": of.line })
}

fn step(step: &Step) -> Value {
    match step {
        Step::Script(None) => json!({ "step": "script", "location": null }),
        Step::Script(Some(of)) => json!({ "step": "script", "location": named("path", of) }),
        Step::Set { name, value } => json!({ "step": "set", "variable": name, "value": value }),
        Step::If { text, holds } => json!({ "step": "if", "condition": text, "holds": holds }),
        Step::Rewrite { text, from, to } => {
            json!({ "step": "rewrite", "rewrite": text, "from": from, "to": to })
        }
        Step::Break => json!({ "step": "break" }),
        Step::Return(answer) => json!({ "step": "return", "answer": answer }),
        Step::Search(of) => search(of),
        Step::Goto(to) => json!({ "step": "goto", "location": named("path", to) }),
        Step::Files(of) => json!({ "step": "files", "files": named("key", of) }),
        Step::Looked { path, is_there } => json!({ "step": "looked", "path": path, "there": is_there }),
        Step::Upgrade(of) => json!({ "step": "upgrade", "upgrade": upgrade(of) }),
        Step::Guard { key, text, passes, line } => {
            json!({ "step": "guard", "key": key, "why": text, "passes": passes, "line": line })
        }
        Step::ErrorPage { error, to, line } => json!({
            "step": "error_page",
            "status": error.status,
            "why": error.why,
            "to": to,
            "line": line,
        }),
    }
}

fn search(search: &Search) -> Value {
    let candidates: Vec<Value> = search
        .candidates
        .iter()
        .map(|candidate| {
            json!({
                "path": candidate.location.name,
                "line": candidate.location.line,
                "depth": candidate.depth,
                "outcome": candidate.outcome.word(),
                "won": candidate.won,
            })
        })
        .collect();
    json!({ "step": "search", "path": search.path, "candidates": candidates })
}

fn upgrade(upgrade: &Upgrade) -> Value {
    json!({ "protocol": upgrade.protocol, "passed": upgrade.is_passed, "why": upgrade.why })
}

fn timeout(setting: &Setting) -> Value {
    json!({
        "key": setting.key,
        "seconds": setting.value.map(|value| value.as_secs_f64()),
        "set_by": setting.line.map(|_| setting.set_by),
        "line": setting.line,
    })
}

fn answer(end: &End) -> Value {
    match end {
        End::Refused => json!({
            "from": "error",
            "status": null,
            "why": "the handshake of TLS is refused",
            "fields": [],
        }),
        End::Upstream(_) => json!({ "from": "upstream", "status": null, "why": null }),
        End::Reply { status, fields, body, length } => json!({
            "from": "hopgate",
            "status": status,
            "why": null,
            "fields": fields_of(fields),
            "body": body,
            "length": length,
        }),
        End::Failure { failure: Failure { status, why }, fields } => json!({
            "from": "error",
            "status": status,
            "why": why,
            "fields": fields_of(fields),
        }),
    }
}

fn fields_of(fields: &[(String, String)]) -> Value {
    fields.iter().map(|(name, value)| json!([name, value])).collect()
}

fn upstream(upstream: &Upstream) -> Value {
    let servers: Vec<Value> = upstream
        .servers
        .iter()
        .map(|server| json!({ "address": server.address, "words": server.words, "chosen": server.is_chosen }))
        .collect();
    let pages: Vec<Value> =
        upstream.error_pages.iter().map(|(statuses, to)| json!({ "statuses": statuses, "to": to })).collect();
    let tls = upstream.tls.as_ref().map(|tls| {
        json!({
            "verify": tls.believed != Believed::Anybody,
            "trusted_certificate": tls.believed == Believed::File,
            "trust_line": tls.believed_line,
            "name": tls.name,
            "name_line": tls.name_line,
            "server_name": tls.sends_name,
        })
    });
    json!({
        "name": upstream.named.name,
        "line": upstream.named.line,
        "proxy_pass_line": upstream.pass_line,
        "http_version": if upstream.is_http2 { "2" } else { "1.1" },
        "proxy_protocol": upstream.header,
        "tls": tls,
        "method": upstream.method,
        "servers": servers,
        "next": upstream.next,
        "error_pages": pages,
        "head": text(&upstream.sent.head),
        "examples": upstream.sent.examples,
    })
}

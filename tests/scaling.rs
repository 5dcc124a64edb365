//! What docs/scaling.md promises of many hopgates: what a roll-out does to tunnels, and the manifests for Kubernetes.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::Dir;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a program prints when all is well.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| {
        panic!("{command:?} ({error}): run tests/run, which installs what is missing")
    });
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaints}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_roll_out_moves_the_tunnels_of_one_hopgate_spread_over_time_and_no_others() {
    // It fails by itself if another tunnel ends, or a request or a new tunnel fails.
    let table =
        output(
            Command::new("timeout").args(["--kill-after=5", "60", "node"]).arg(root("benches/rollout")).args(
                ["--hopgate", env!("CARGO_BIN_EXE_hopgate"), "--tunnels", "200", "--shutdown-timeout", "4.5"],
            ),
        );
    let row = |name: &str| -> Vec<f64> {
        let row = table.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{table}"));
        let cell = row.split('|').nth(2).unwrap_or_default();
        cell.split([' ', ',', ';']).filter_map(|word| word.parse().ok()).collect()
    };
    assert_eq!(row("that moved"), [100.0, 100.0]);
    let tenths = row("in each tenth");
    assert_eq!((tenths.len(), tenths.iter().sum()), (10, 100.0), "{table}");
    // Each has 10 on average; a busy machine sees several of them at once.
    assert!(tenths.iter().all(|tenth| *tenth <= 60.0), "{table}");
}

/// The manifests of the example, once they fit the schemas of Kubernetes.
#[track_caller]
fn manifests() -> Vec<Value> {
    let mut command = Command::new(root("tests/apps/python/bin/python"));
    command.arg(root("tests/apps/manifests.py"));
    command.args(["hopgate.yaml", "app.yaml"].map(|file| root("examples/kubernetes").join(file)));
    let printed = output(&mut command);
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

/// The one of this kind and name.
#[track_caller]
fn object<'a>(manifests: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = manifests.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn the_manifests_fit_kubernetes_and_their_configuration_hopgate() {
    let manifests = manifests();
    let toml = object(&manifests, "ConfigMap", "hopgate")["data"]["hopgate.toml"].as_str().expect("a text");
    let dir = Dir::new();
    fs::write(dir.join("hopgate.toml"), toml).expect("a file can be written");
    output(
        Command::new(env!("CARGO_BIN_EXE_hopgate"))
            .args(["check", "--strict", "--config", "hopgate.toml"])
            .current_dir(&dir),
    );

    let pod = &object(&manifests, "Deployment", "hopgate")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert!(
        pod["volumes"].as_array().is_some_and(|volumes| {
            volumes.iter().any(|volume| {
                volume["configMap"]["name"] == "hopgate"
                    && volume["name"] == container["volumeMounts"][0]["name"]
            })
        }),
        "{pod}"
    );
    for (name, line) in [("http", "listen = \"0.0.0.0:8080\""), ("health", "listen = \"0.0.0.0:9180\"")] {
        let port = container["ports"].as_array().into_iter().flatten().find(|port| port["name"] == name);
        let port = port.and_then(|port| port["containerPort"].as_u64()).expect("a port");
        assert!(toml.contains(line) && line.ends_with(&format!(":{port}\"")), "{name}");
    }
    // Longer than what hopgate takes by itself.
    let seconds = |key: &str| -> u64 {
        let line = toml.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.and_then(|line| line.trim_end_matches("s\"").parse().ok()).unwrap_or_else(|| panic!("no {key}"))
    };
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
    assert!(grace > seconds("shutdown_delay") + seconds("shutdown_timeout"), "{grace}");

    // Who is meant is there: each selector has pods, and the upstream is the headless Service.
    for (kind, name) in [("Service", "hopgate"), ("Service", "app"), ("PodDisruptionBudget", "hopgate")] {
        let selector = &object(&manifests, kind, name)["spec"]["selector"];
        let selector = if kind == "Service" { selector } else { &selector["matchLabels"] };
        let template = &object(&manifests, "Deployment", name)["spec"]["template"];
        assert_eq!(*selector, template["metadata"]["labels"], "{kind} {name}");
    }
    let app = object(&manifests, "Service", "app");
    assert_eq!(app["spec"]["clusterIP"], "None");
    assert!(toml.contains(&format!(
        "server = \"app.default.svc.cluster.local:{}\"",
        app["spec"]["ports"][0]["port"]
    )));
}

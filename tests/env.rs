//! The environment in place of flags: a container is configured without a file, and a flag wins.

mod support;

use std::fs;
use std::process::{Command, Stdio};

use support::{App, Dir, Hopgate, free_addr};

#[test]
fn an_upstream_in_the_environment_is_all_that_it_takes() {
    let app = App::named("app");
    let (first, second, health) = (free_addr(), free_addr(), free_addr());
    let hopgate = Hopgate::quick_with_env(
        &["run"],
        &[
            ("HOPGATE_UPSTREAM", &format!("http://{}", app.addr())),
            ("HOPGATE_LISTEN", &format!("{first}, {second}")),
            ("HOPGATE_HEALTH", &health.to_string()),
            ("HOPGATE_WORKERS", "1"),
            ("HOPGATE_CONFIG", ""),
        ],
    );
    assert_eq!(hopgate.listening(), [first.to_string(), second.to_string()]);
    hopgate.wait_for_log(&format!("health checks are answered on {health}"));
    assert!(hopgate.wait_for_log(" started, ").ends_with("1 workers"), "{}", hopgate.log());
    assert_eq!(hopgate.get("/").0, 200);
    // No colours: neither of the two is a terminal.
    let line = hopgate.wait_for_access("GET / HTTP/1.1");
    assert!(!line.contains('\x1b') && !hopgate.log().contains('\x1b'), "{line}\n{}", hopgate.log());
}

#[test]
fn a_flag_wins_over_what_the_image_says() {
    let (app, other) = (App::named("app"), App::named("other"));
    let image = [
        ("HOPGATE_CONFIG", "/no/such/file"),
        ("HOPGATE_UPSTREAM", &*format!("http://{}", other.addr())),
        ("HOPGATE_LISTEN", "nonsense"),
    ];
    let upstream = format!("http://{}", app.addr());
    let hopgate =
        Hopgate::quick_with_env(&["run", "--listen", "127.0.0.1:0", "--upstream", &upstream], &image);
    assert_eq!(hopgate.get("/"), (200, "app".to_owned()));
    let toml = format!(
        "[[server]]\nlisten = \"127.0.0.1:0\"\nlocation = [{{ path = \"/\", proxy_pass = \"{upstream}\" }}]"
    );
    let hopgate = Hopgate::start_with_env(&toml, &image);
    assert_eq!(hopgate.get("/"), (200, "app".to_owned()));
    hopgate.wait_for_log("HOPGATE_LISTEN not used");
}

#[test]
fn a_mistake_in_the_environment_names_the_variable_and_is_wrong_usage() {
    let dir = Dir::new();
    fs::write(dir.join("a.toml"), "listen = 1").expect("a file");
    let file = dir.path("a.toml");
    type Environment<'a> = &'a [(&'a str, &'a str)];
    type Row<'a> = (&'a [&'a str], Environment<'a>, i32, &'a str);
    let rows: [Row<'_>; 6] = [
        (&["run"], &[("HOPGATE_UPSTREAM", "foo")], 2, "error: HOPGATE_UPSTREAM: `foo` is not a URL"),
        (
            &["run"],
            &[("HOPGATE_UPSTREAM", "http://a"), ("HOPGATE_CONFIG", "b")],
            2,
            "error: HOPGATE_CONFIG and HOPGATE_UPSTREAM are both set",
        ),
        (&["run", "--listen", "80"], &[], 2, "say `--upstream <URL>`, or set HOPGATE_UPSTREAM"),
        (&["run"], &[("HOPGATE_CONFIG", "/no/such/file")], 1, "error: cannot read /no/such/file"),
        (&["check"], &[("HOPGATE_CONFIG", &file)], 1, "a.toml:1:1"),
        (&["explain", "http://a/"], &[("HOPGATE_CONFIG", &file)], 1, "a.toml:1:1"),
    ];
    for (args, env, code, said) in rows {
        let output = Command::new(env!("CARGO_BIN_EXE_hopgate"))
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("hopgate can be run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(said), "expected: {said}\ngot: {stderr}");
        assert_eq!(output.status.code(), Some(code), "{stderr}");
    }
}

//! gRPC through hopgate: a real client and a real server, and nginx in hopgate's place for comparison.

mod support;

use std::fs;

use support::{Authority, Dir, Hopgate, Nginx, NodeApp, run_node_script};

/// Every kind of call, with metadata, statuses, large messages, deadlines and cancellation.
const CLIENT: &str = "grpc-client.js";

#[test]
fn the_client_and_the_server_understand_each_other() {
    let server = NodeApp::speaking_grpc();
    run_node_script(CLIENT, &format!("http://{}", server.addr()));
}

#[test]
fn grpc_goes_through_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let server = NodeApp::speaking_grpc();
    let nginx = Nginx::start(&format!(
        "server {{ listen 80 http2; client_max_body_size 0; location / {{ grpc_pass grpc://{}; }} }}",
        server.addr()
    ));
    run_node_script(CLIENT, &format!("http://{}", nginx.addr()));
}

/// hopgate for calls without TLS, with these lines for where they go.
#[track_caller]
fn hopgate(lines: &str) -> Hopgate {
    Hopgate::start(&format!(
        r#"
        [[server]]
        listen = "127.0.0.1:0 http2"

        [[server.location]]
        path = "/"
        proxy_http_version = "2"
        {lines}
        "#
    ))
}

#[test]
fn grpc_goes_through_hopgate() {
    let server = NodeApp::speaking_grpc();
    let hopgate = hopgate(&format!("proxy_pass = 'http://{}'", server.addr()));
    run_node_script(CLIENT, &format!("http://{}", hopgate.addr()));
}

#[test]
fn grpc_goes_through_hopgate_to_a_server_behind_tls() {
    let (authority, dir) = (Authority::new("hopgate test CA"), Dir::new());
    authority.issue(&["app.test"]).write(&dir, "server");
    fs::write(dir.join("ca.pem"), authority.pem()).expect("a file can be written");
    let server = NodeApp::speaking_grpcs(&dir.path("server.pem"), &dir.path("server.key"));
    let hopgate = hopgate(&format!(
        "proxy_pass = 'https://{}'\nproxy_ssl_name = 'app.test'\nproxy_ssl_trusted_certificate = '{}'",
        server.addr(),
        dir.path("ca.pem")
    ));
    run_node_script(CLIENT, &format!("http://{}", hopgate.addr()));
}

/// A call without TE, which gRPC asks for, and an upstream that is not there: what a client is told is HTTP, from which
/// gRPC makes a status of its own.
#[test]
fn a_server_that_is_not_there_is_told_as_a_502() {
    let hopgate = hopgate("proxy_pass = 'http://127.0.0.1:1'");
    let mut client = support::Http2::connect(&hopgate);
    let answer = client.ask("POST", "/hopgate.test.Echo/Unary", &[("content-type", "application/grpc")]);
    answer.expect_status(502);
}

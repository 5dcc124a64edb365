//! The demo app over real sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, frame::coding::CloseCode};
use tokio_tungstenite::{WebSocketStream, client_async};

#[tokio::test]
async fn the_page_is_one_file_that_names_what_to_try() {
    let app = start().await;
    let response = get(app, "/", "").await;
    assert!(
        response.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\n"),
        "{response}"
    );
    for id in
        "ws-url ws-connect ws-disconnect ws-message ws-send ws-log ws-state clock json json-load".split(' ')
    {
        assert!(response.contains(&format!("id=\"{id}\"")), "{id}");
    }
    for foreign in ["src=\"http", "href=\"http", "src=\"//", "@import", "url(http"] {
        assert!(!response.contains(foreign), "{foreign}");
    }
}

#[tokio::test]
async fn a_websocket_on_any_path_greets_and_echoes() {
    let path = format!("/any/{}", fastrand::u32(..));
    let mut socket = connect(start().await, &path).await;
    let greeting = next(&mut socket).await;
    assert_eq!(
        greeting,
        Some(Message::text(format!("Hello from the demo app. You are connected on {path}")))
    );
    for message in
        [Message::text("grüß dich"), Message::binary(vec![0, 255, 10]), Message::text("x".repeat(300_000))]
    {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await, Some(message));
    }
}

#[tokio::test]
async fn ping_and_close_are_answered() {
    let mut socket = connect(start().await, "/ws").await;
    next(&mut socket).await;
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Message::Pong("are you there".into())));

    let bye = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.close(Some(bye.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Message::Close(Some(bye))));
    assert_eq!(next(&mut socket).await, None);
}

#[tokio::test]
async fn the_clock_tells_the_time_at_once_and_each_second() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    stream.write_all(b"GET /clock HTTP/1.1\r\nhost: demo\r\n\r\n").await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut times = Vec::new();
    let mut event_stream = false;
    while times.len() < 2 {
        let line = soon(lines.next_line()).await.unwrap().expect("the clock goes on");
        event_stream |= line == "content-type: text/event-stream";
        times.extend(line.strip_prefix("data: ").map(|time| time.parse::<jiff::Timestamp>().unwrap()));
    }
    assert!(event_stream);
    assert!(times[0].duration_until(times[1]) > jiff::SignedDuration::from_millis(900), "{times:?}");
}

#[tokio::test]
async fn json_shows_the_head_of_the_request() {
    let head = "X-Forwarded-For: 192.0.2.1\r\nCookie: a=\"\\\"\r\nX-Two: 1\r\nX-Two: 2\r\n";
    let response = get(start().await, "/json?a=1", head).await;
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let seen: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = serde_json::json!({
        "method": "GET",
        "path": "/json?a=1",
        "version": "HTTP/1.1",
        "headers": {
            "host": "demo",
            "connection": "close",
            "x-forwarded-for": "192.0.2.1",
            "cookie": "a=\"\\\"",
            "x-two": ["1", "2"],
        },
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let response = get(start().await, "/nowhere", "").await;
    assert!(
        response.starts_with("HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n"),
        "{response}"
    );
    assert!(response.contains("\"path\": \"/nowhere\""), "{response}");
}

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(super::serve(listener));
    addr
}

/// The whole answer to a GET, head and body.
async fn get(app: SocketAddr, target: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(app).await.unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    soon(stream.read_to_string(&mut response)).await.unwrap();
    response
}

async fn connect(app: SocketAddr, path: &str) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(app).await.unwrap();
    soon(client_async(format!("ws://demo{path}"), stream)).await.unwrap().0
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Message> {
    soon(socket.next()).await.transpose().unwrap()
}

/// Every wait has one deadline, far beyond what any of them should take.
async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), event).await.expect("nothing came within 10 s")
}

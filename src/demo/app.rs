//! What the demo app answers on which path.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::websocket;

/// Answers one request: a WebSocket handshake on any path with a WebSocket, anything else by its path.
pub(super) async fn answer(mut request: Request<Incoming>) -> Result<Response<AppBody>, Infallible> {
    // `Err` says that the request is no proper handshake, so that it is answered as the HTTP request that it is.
    if let Ok(switching) = create_response_with_body(&request, || Either::Left(Full::default())) {
        let path = request.uri().path().to_owned();
        tokio::spawn(websocket::echo(hyper::upgrade::on(&mut request), path));
        return Ok(switching);
    }
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    Ok(match request.uri().path() {
        "/json" => json(StatusCode::OK, describe(&request)),
        "/" if reading => page(),
        "/clock" if reading => clock(),
        "/" | "/clock" => method_not_allowed(),
        path => not_found(path),
    })
}

/// The body of an answer: whole, or a clock that goes on for as long as someone listens.
pub(super) type AppBody = Either<Full<Bytes>, Clock>;

/// One server-sent event with the time at once, then one each second.
pub(super) struct Clock {
    ticks: Interval,
}

impl Clock {
    fn start() -> Clock {
        let mut ticks = interval(Duration::from_secs(1));
        // A client that did not read for a while wants the time that it is now, not all those that it missed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Clock { ticks }
    }
}

impl Body for Clock {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.ticks.poll_tick(context));
        // With milliseconds, since late events would otherwise look as good as timely ones.
        let event = format!("data: {:.3}\n\n", Timestamp::now());
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

fn page() -> Response<AppBody> {
    respond(StatusCode::OK, "text/html; charset=utf-8", whole(include_str!("page.html")))
}

fn clock() -> Response<AppBody> {
    respond(StatusCode::OK, "text/event-stream", Either::Right(Clock::start()))
}

fn not_found(path: &str) -> Response<AppBody> {
    let path = quote(path);
    let hint = "try /, /clock or /json, or a WebSocket on any path";
    let text = format!("{{\n  \"error\": \"not found\",\n  \"path\": {path},\n  \"hint\": \"{hint}\"\n}}\n");
    json(StatusCode::NOT_FOUND, text)
}

fn method_not_allowed() -> Response<AppBody> {
    let text = "{\n  \"error\": \"method not allowed\"\n}\n".to_owned();
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, text);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn json(status: StatusCode, text: String) -> Response<AppBody> {
    respond(status, "application/json", whole(text))
}

fn whole(text: impl Into<Bytes>) -> AppBody {
    Either::Left(Full::new(text.into()))
}

fn respond(status: StatusCode, content_type: &'static str, body: AppBody) -> Response<AppBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The head of the request as the app received it, as JSON.
fn describe(request: &Request<Incoming>) -> String {
    let method = quote(request.method().as_str());
    let path = quote(&request.uri().to_string());
    let version = quote(&format!("{:?}", request.version()));
    let fields: Vec<String> = request.headers().keys().map(|name| field(request.headers(), name)).collect();
    let fields = fields.join(",\n    ");
    format!(
        "{{\n  \"method\": {method},\n  \"path\": {path},\n  \"version\": {version},\n  \
         \"headers\": {{\n    {fields}\n  }}\n}}\n"
    )
}

/// A field with its value, or with the list of them if it came on several lines.
fn field(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).iter().map(|value| quote(&String::from_utf8_lossy(value.as_bytes())));
    let values: Vec<String> = values.collect();
    match values.as_slice() {
        [only] => format!("\"{name}\": {only}"),
        several => format!("\"{name}\": [{}]", several.join(", ")),
    }
}

/// A JSON string, RFC 8259 §7.
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => quoted += &format!("\\u{:04x}", u32::from(control)),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

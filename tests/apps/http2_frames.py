"""Frames that no client would send, made with the parts of Python's h2.

    python http2_frames.py HOST:PORT

Prints a line for each case and ends with 1 if one of them came out otherwise than expected. `/` answers by itself,
and `/app` goes to an upstream that takes requests and never answers.
"""

import socket
import sys
import time

import hpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import (
    ContinuationFrame, DataFrame, ExtensionFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame,
    RstStreamFrame, SettingsFrame, WindowUpdateFrame,
)

HOST, PORT = sys.argv[1].rsplit(":", 1)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0, 1, 3, 5
FRAME_SIZE_ERROR, REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 6, 7, 9, 11

GET = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
CONNECT = [
    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "a"), (":path", "/app"),
    ("sec-websocket-version", "13"),
]


def changed(fields, **changes):
    """The pseudo-header fields with some of them changed, or left out."""
    changes = {":" + name: value for name, value in changes.items()}
    return [(name, changes.get(name, value)) for name, value in fields if changes.get(name, value) is not None]


class Client:
    """A connection on which anything may be sent."""

    def __init__(self, settings=None, preface=PREFACE):
        self.socket = socket.create_connection((HOST, int(PORT)), 10)
        self.socket.settimeout(10)
        self.read = b""
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.next_stream = 1
        if preface:
            self.socket.sendall(preface)
            self.send(SettingsFrame(0, settings=settings or {}))

    def send(self, *frames):
        self.send_bytes(b"".join(frame.serialize() for frame in frames))

    def send_bytes(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what it has said by then is still to be read

    def headers(self, fields, end=True, stream=None):
        """Sends a header block, whatever is in it, on a new stream; returns its number."""
        if stream is None:
            stream, self.next_stream = self.next_stream, self.next_stream + 2
        flags = ["END_HEADERS"] + (["END_STREAM"] if end else [])
        self.send(HeadersFrame(stream, self.block(fields), flags=flags))
        return stream

    def block(self, fields):
        # Without an index, so that nothing is put right on the way.
        def text(value):
            value = value if isinstance(value, bytes) else value.encode()
            return hpack.hpack.encode_integer(len(value), 7) + value
        return b"".join(b"\0" + bytes(text(name)) + bytes(text(value)) for name, value in fields)

    def frame(self):
        """The next frame; None at the end of the connection."""
        try:
            while len(self.read) < 9:
                self.more()
            frame, length = Frame.parse_frame_header(memoryview(self.read[:9]))
            while len(self.read) < 9 + length:
                self.more()
        except (EOFError, ConnectionResetError):
            return None
        frame.parse_body(memoryview(self.read[9:9 + length]))
        self.read = self.read[9 + length:]
        if isinstance(frame, (HeadersFrame, ContinuationFrame)):
            frame.fields = self.decoder.decode(frame.data)
        return frame

    def more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.read += data

    def outcome(self, stream=None):
        """What becomes of a stream, or of the connection."""
        while True:
            frame = self.frame()
            if frame is None:
                return "closed"
            if isinstance(frame, GoAwayFrame) and frame.error_code != NO_ERROR:
                return f"goaway {frame.error_code}"
            if stream is None or frame.stream_id != stream:
                continue
            if isinstance(frame, HeadersFrame):
                return dict(frame.fields)[":status"]
            if isinstance(frame, RstStreamFrame):
                return f"reset {frame.error_code}"

    def answer(self, stream):
        """The status of an answer, read to its end."""
        status = None
        while True:
            frame = self.frame()
            if frame is None or frame.stream_id != stream:
                assert frame is not None, "the connection has ended"
                continue
            if isinstance(frame, HeadersFrame):
                status = dict(frame.fields)[":status"]
            if isinstance(frame, RstStreamFrame):
                return f"reset {frame.error_code}"
            if "END_STREAM" in frame.flags:
                return status


failures, count = [], 0


def check(name, got, *expected):
    global count
    count += 1
    is_right = got in expected
    print("ok" if is_right else "not ok", name, "" if is_right else f"\n    expected: {expected}\n         got: {got}")
    if not is_right:
        failures.append(name)


def malformed(name, fields, *expected, end=True, then=()):
    """A request that is refused, on a connection that goes on."""
    client = Client()
    stream = client.headers(fields, end=end)
    if then:
        client.send(*(frame(stream) for frame in then))
    check(name, client.outcome(stream), *(expected or [f"reset {PROTOCOL_ERROR}"]))
    check(f"… and the connection goes on: {name}", client.answer(client.headers(GET)), "200")


# Python's own client is served, to begin with.
def ordinary():
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    connection.send_headers(1, GET, end_stream=True)
    client = Client(preface=None)
    client.send_bytes(connection.data_to_send())
    check("an ordinary request", client.answer(1), "200")


# R34: fields of a connection, and everything else that makes a request malformed (RFC 9113 §8.1.1).
def heads():
    for name, value in [
        ("connection", "close"), ("connection", "x-a"), ("keep-alive", "timeout=5"), ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"), ("upgrade", "h2c"), ("upgrade", "websocket"), ("te", "gzip"),
        ("te", "trailers, gzip"), ("X-Upper", "a"), ("Connection", "close"), ("", "a"), ("a b", "a"), ("a:b", "a"),
        ("a\r\nb", "a"), ("a\0", "a"), ("x", "a\0b"), ("x", "a\r\nb: c"), ("x", "a\nb"), ("x", "a\rb"),
        (":unknown", "a"), (":status", "200"),
    ]:
        # Some of it breaks the rules of h2's decoder rather than those for requests: then the connection ends.
        refused = [f"reset {PROTOCOL_ERROR}", f"goaway {PROTOCOL_ERROR}", f"goaway {COMPRESSION_ERROR}"]
        client = Client()
        got = client.outcome(client.headers(GET + [(name, value)]))
        check(f"the field {name!r}: {value!r}", got, *refused)
    malformed("a value with a blank before it", GET + [("x", " a")], "400")
    malformed("a value with a tab behind it", GET + [("x", "a\t")], "400")
    malformed("a pseudo-header field behind others", [("x", "a")] + GET)
    malformed("a repeated :path", GET + [(":path", "/b")])
    for name in ["method", "scheme", "path"]:
        malformed(f"no :{name}", changed(GET, **{name: None}), f"reset {PROTOCOL_ERROR}")
    malformed("an empty :path", changed(GET, path=""))
    for path in ["app", "http://a/app"]:
        malformed(f":path {path}", changed(GET, path=path), f"reset {PROTOCOL_ERROR}")
    for path in ["?x", "//a/../..", "*", "/%00", "/a/%2f", "/../x"]:
        malformed(f":path {path}", changed(GET, path=path), "400")
    malformed("a blank in :path", changed(GET, path="/a b"), "400", f"reset {PROTOCOL_ERROR}")
    malformed("no :authority and no Host", changed(GET, authority=None), "400")
    malformed("Host instead of :authority", changed(GET, authority=None) + [("host", "a")], "200")
    malformed("Host as :authority", GET + [("host", "A")], "200")
    malformed("Host that differs from :authority", GET + [("host", "b")], "400")
    malformed("two Hosts", GET + [("host", "a"), ("host", "a")], "400")
    malformed("a user in :authority", changed(GET, authority="u@a"), "400")
    malformed("TRACE", changed(GET, method="TRACE"), "405")


def content():
    post = changed(GET, method="POST", path="/app")
    malformed("less content than told", post + [("content-length", "5")], end=False,
              then=[lambda stream: DataFrame(stream, b"abc", flags=["END_STREAM"])])
    malformed("more content than told", post + [("content-length", "2")], end=False,
              then=[lambda stream: DataFrame(stream, b"abc", flags=["END_STREAM"])])
    malformed("content that is told and does not come", post + [("content-length", "5")])
    malformed("two lengths", post + [("content-length", "3"), ("content-length", "4")], end=False)
    for length in ["+3", "-3", "3,3", "0x3", " 3", "x"]:
        malformed(f"a length of {length}", post + [("content-length", length)], f"reset {PROTOCOL_ERROR}", "400",
                  end=False)


# R11 and R33.
def connect():
    for name in ["scheme", "path"]:
        malformed(f"extended CONNECT without :{name}", changed(CONNECT, **{name: None}), end=False)
    malformed("extended CONNECT without :authority", changed(CONNECT, authority=None) + [("host", "a")], "400",
              end=False)
    malformed("extended CONNECT with another Host", CONNECT + [("host", "b")], "400", end=False)
    malformed(":protocol in a GET", changed(CONNECT, method="GET"))
    malformed("extended CONNECT with Content-Length", CONNECT + [("content-length", "5")], "400", end=False)
    malformed("extended CONNECT for something else", changed(CONNECT, protocol="connect-ip"), "501", end=False)
    malformed("extended CONNECT where there is no app", changed(CONNECT, path="/"), "400", end=False)
    malformed("extended CONNECT with Connection", CONNECT + [("connection", "upgrade")], end=False)
    plain = [(":method", "CONNECT"), (":authority", "a:443")]
    malformed("plain CONNECT", plain, "405", end=False)
    malformed("plain CONNECT with a path", plain + [(":path", "/")], end=False)


# Errors of the connection end it, RFC 9113 §5.4.1.
def connection_errors():
    def case(name, *frames, expected=PROTOCOL_ERROR, raw=b""):
        client = Client()
        client.send(*frames)
        client.send_bytes(raw)
        # h2 calls some of them by the more general name.
        check(name, client.outcome(), f"goaway {expected}", f"goaway {PROTOCOL_ERROR}")

    case("DATA on a stream that nobody opened", DataFrame(1, b"a"))
    case("a stream with an even number", HeadersFrame(2, Client().block(GET), flags=["END_HEADERS"]))
    case("HEADERS on stream 0", raw=b"\0\0\1\1\5\0\0\0\0\x82")
    case("a window that grows too large", WindowUpdateFrame(0, 2**31 - 1), expected=FLOW_CONTROL_ERROR)
    case("a window that grows by nothing", raw=b"\0\0\4\x08\0\0\0\0\0\0\0\0\0")
    case("SETTINGS of an odd size", raw=b"\0\0\5\4\0\0\0\0\0\0\0\0\0\0", expected=FRAME_SIZE_ERROR)
    case("PING of an odd size", raw=b"\0\0\7\6\0\0\0\0\0" + b"x" * 7, expected=FRAME_SIZE_ERROR)
    case("a frame that is too large", raw=b"\0\x80\0\0\0\0\0\0\1" + b"x" * 32768, expected=FRAME_SIZE_ERROR)
    case("CONTINUATION without HEADERS", ContinuationFrame(1, b"", flags=["END_HEADERS"]))
    case("a frame in the middle of a head", HeadersFrame(1, Client().block(GET)), PingFrame(0, b"12345678"))
    case("a bad index of HPACK", HeadersFrame(1, b"\xff\xff\xff\xff", flags=["END_HEADERS"]),
         expected=COMPRESSION_ERROR)

    client = Client(preface=None)
    client.send_bytes(PREFACE)
    client.send(HeadersFrame(1, client.block(GET), flags=["END_HEADERS", "END_STREAM"]))
    check("no SETTINGS at the beginning", client.outcome(), f"goaway {PROTOCOL_ERROR}")


# R35. Nothing of the answers is read before the end: whoever floods does not read.
def floods():
    def flood(name, make, most, *expected, prepare=None):
        client = Client()
        if prepare:
            prepare(client)
        for _ in range(most):
            client.send_bytes(make(client))
        check(name, client.outcome(), *(expected or [f"goaway {ENHANCE_YOUR_CALM}"]), "closed")

    def opened(client):
        client.headers(changed(GET, method="POST", path="/app"), end=False)

    def many(frame):
        return lambda client: frame.serialize() * 500

    def opened_and_reset(client):
        data = b""
        for _ in range(50):
            stream, client.next_stream = client.next_stream, client.next_stream + 2
            fields = client.block(changed(GET, path="/app"))
            data += HeadersFrame(stream, fields, flags=["END_HEADERS", "END_STREAM"]).serialize()
            data += RstStreamFrame(stream, 8).serialize()
        return data

    def opened_answered_and_reset(client):
        # So that they are on their way by the time that they are given up.
        fields = changed(GET, path="/app")
        streams = [client.headers(fields) for _ in range(50)]
        client.send(PingFrame(0, b"12345678"))
        while not isinstance(frame := client.frame(), PingFrame):
            if frame is None or isinstance(frame, GoAwayFrame):
                return b""
        return b"".join(RstStreamFrame(stream, 8).serialize() for stream in streams)

    flood("rapid reset", opened_and_reset, 40)
    flood("rapid reset of requests that are on their way", opened_answered_and_reset, 11)
    flood("PING", many(PingFrame(0, b"12345678")), 60)
    flood("SETTINGS", many(SettingsFrame(0, settings={4: 65535})), 60)
    flood("PRIORITY", many(PriorityFrame(1, depends_on=0, stream_weight=1)), 60)
    flood("unknown frames", many(ExtensionFrame(type=99, stream_id=0, body=b"")), 60)
    flood("WINDOW_UPDATE", many(WindowUpdateFrame(0, 1)), 60)
    flood("empty DATA", many(DataFrame(1, b"")), 60, prepare=opened)
    flood("DATA of one byte", many(DataFrame(1, b"x")), 400, prepare=opened)

    client = Client()
    client.send(HeadersFrame(1, client.block(GET)))
    for _ in range(2000):
        client.send_bytes(ContinuationFrame(1, b"").serialize())
    check("CONTINUATION without an end", client.outcome(), f"goaway {ENHANCE_YOUR_CALM}", "closed")

    # CVE-2025-8671: errors by which a client has its streams reset, again and again.
    client, data = Client(), b""
    for _ in range(4000):
        stream, client.next_stream = client.next_stream, client.next_stream + 2
        data += HeadersFrame(stream, client.block(changed(GET, path="/app")), flags=["END_HEADERS"]).serialize()
        data += b"\0\0\4\x08\0" + stream.to_bytes(4, "big") + b"\0\0\0\0"
    client.send_bytes(data)
    check("streams that are made to be reset", client.outcome(), f"goaway {ENHANCE_YOUR_CALM}", "closed",
          f"goaway {PROTOCOL_ERROR}")

    # A few bytes that stand for many: an entry of the table, named again and again.
    client = Client()
    value = ("x", "y" * 3000)
    first = bytes(client.encoder.encode(GET + [value]))
    again = bytes(client.encoder.encode(GET)) + bytes(client.encoder.encode([value])) * 10_000
    client.send(HeadersFrame(1, first, flags=["END_HEADERS", "END_STREAM"]),
                HeadersFrame(3, again, flags=["END_HEADERS", "END_STREAM"]))
    check("an HPACK bomb", client.outcome(3), "431", f"goaway {ENHANCE_YOUR_CALM}", f"goaway {PROTOCOL_ERROR}",
          f"goaway {COMPRESSION_ERROR}", "closed")


def too_many_streams():
    client = Client()
    streams = [client.headers(changed(GET, path="/app")) for _ in range(130)]
    check("one stream too many", client.outcome(streams[128]), f"reset {REFUSED_STREAM}")
    client.send(*(RstStreamFrame(stream, 8) for stream in streams[:10]))
    check("… and room for another afterwards", client.answer(client.headers(GET)), "200")


# A GOAWAY that says that there are no further streams is not for the client to decide upon (`keepalive_requests`).
def deaf():
    client = Client()
    client.send(WindowUpdateFrame(0, window_increment=1 << 30))
    for _ in range(1000):
        client.answer(client.headers(GET))
    got, deadline = "200", time.monotonic() + 10
    while got == "200" and time.monotonic() < deadline:
        got = client.answer(client.headers(GET))
    check("a client that takes no notice of GOAWAY", got, f"reset {REFUSED_STREAM}")
    check("… and what becomes of its connection", client.outcome(), "closed")


def no_http2():
    for bytes_, expected in [(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b" 505 "), (b"PRJ * HTTP/2.0\r\n\r\n", b" 505 "),
                             (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b" 200 ")]:
        client = Client(preface=None)
        client.send_bytes(bytes_)
        check(f"{bytes_!r}", client.socket.recv(100)[8:13], expected)


for group in [ordinary, heads, content, connect, connection_errors, floods, too_many_streams, deaf, no_http2]:
    try:
        group()
    except (AssertionError, OSError) as error:
        check(f"{group.__name__}: {error!r}", "broke off")
ordinary()
print(f"{count - len(failures)} of {count} cases came out as expected")
sys.exit(1 if failures else 0)

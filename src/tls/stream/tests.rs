use std::future::poll_fn;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream as Socket;
use std::thread::JoinHandle;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{
    ClientConnection, Connection, HandshakeKind, RootCertStore, ServerConnection, SupportedProtocolVersion,
};
use tokio::net::UnixStream;

use super::*;

/// What both sides are configured with.
struct World {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl World {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let made = rcgen::generate_simple_self_signed(["test".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server: Arc::new(server), client: Arc::new(client) }
    }

    fn accept(&self, socket: Socket) -> TlsStream {
        TlsStream::accept(stream(socket), Arc::clone(&self.server), Vec::new()).unwrap()
    }

    fn connect(&self, socket: Socket) -> TlsStream {
        TlsStream::connect(stream(socket), Arc::clone(&self.client), name()).unwrap()
    }

    fn ours(&self, role: Role, socket: Socket) -> TlsStream {
        if role == Role::Server { self.accept(socket) } else { self.connect(socket) }
    }

    /// The other side of `role`.
    fn theirs(&self, role: Role) -> Connection {
        match role {
            Role::Server => ClientConnection::new(Arc::clone(&self.client), name()).unwrap().into(),
            Role::Client => ServerConnection::new(Arc::clone(&self.server)).unwrap().into(),
        }
    }
}

/// Ours.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Server,
    Client,
}

const ROLES: [Role; 2] = [Role::Server, Role::Client];

fn worlds() -> [World; 2] {
    [World::new(&rustls::version::TLS12), World::new(&rustls::version::TLS13)]
}

fn name() -> ServerName<'static> {
    ServerName::try_from("test").unwrap()
}

fn stream(socket: Socket) -> Stream {
    socket.set_nonblocking(true).unwrap();
    Stream::Unix(UnixStream::from_std(socket).unwrap())
}

/// A peer on a thread of its own, on a connection whose handshake is done.
fn peer<T: Send + 'static>(
    mut connection: Connection,
    mut socket: Socket,
    then: impl FnOnce(&mut Connection, &mut Socket) -> T + Send + 'static,
) -> JoinHandle<T> {
    std::thread::spawn(move || {
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).unwrap();
        }
        while connection.wants_write() {
            connection.write_tls(&mut socket).unwrap();
        }
        then(&mut connection, &mut socket)
    })
}

/// The plaintext of a peer's connection.
struct Wire<'a>(&'a mut Connection, &'a mut Socket);

impl Wire<'_> {
    fn process(&mut self) -> io::Result<()> {
        let processed = self.0.process_new_packets();
        while self.0.wants_write() {
            self.0.write_tls(self.1)?;
        }
        processed.map(drop).map_err(io::Error::other)
    }
}

impl io::Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.0.read_tls(self.1)?;
            self.process()?;
        }
    }
}

impl io::Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.writer().write(bytes)?;
        self.process().map(|()| count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn handshake(stream: &mut TlsStream) -> io::Result<()> {
    poll_fn(|cx| stream.poll_handshake(cx)).await
}

async fn read(stream: &mut TlsStream, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, buffer)).await
}

async fn read_exactly(stream: &mut TlsStream, buffer: &mut [u8]) {
    let mut at = 0;
    while at < buffer.len() {
        let count = read(stream, &mut buffer[at..]).await.unwrap();
        assert_ne!(count, 0, "the end after {at} bytes");
        at += count;
    }
}

async fn write_all(stream: &mut TlsStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let count = poll_fn(|cx| stream.poll_write(cx, bytes)).await.unwrap();
        bytes = &bytes[count..];
    }
}

async fn shutdown(stream: &mut TlsStream) {
    poll_fn(|cx| stream.poll_shutdown_write(cx)).await;
}

fn noise(count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(count as u64);
    (0..count).map(|_| random.u8(..)).collect()
}

#[tokio::test]
async fn bytes_go_both_ways_in_both_roles_and_versions_and_nothing_is_kept() {
    for world in worlds() {
        for role in ROLES {
            let (socket, other) = Socket::pair().unwrap();
            let theirs = peer(world.theirs(role), other, |connection, socket| {
                let mut stream = Wire(connection, socket);
                stream.write_all(b"from them").unwrap();
                let mut got = [0; 9];
                stream.read_exact(&mut got).unwrap();
                got
            });
            let mut ours = world.ours(role, socket);
            handshake(&mut ours).await.unwrap();
            let mut got = [0; 9];
            read_exactly(&mut ours, &mut got).await;
            assert_eq!(&got, b"from them");
            write_all(&mut ours, b"from us!!").await;
            assert_eq!(&theirs.join().unwrap(), b"from us!!");
            assert_eq!(ours.incoming.capacity() + ours.plaintext.0.capacity(), 0);
            assert!(ours.outgoing.is_empty());
        }
    }
}

#[tokio::test]
async fn records_that_come_byte_by_byte_are_put_together() {
    for world in worlds() {
        for role in ROLES {
            let (socket, mut other) = Socket::pair().unwrap();
            let mut connection = world.theirs(role);
            let sent = noise(40_000);
            let expected = sent.clone();
            let theirs = std::thread::spawn(move || {
                let flush = |connection: &mut Connection, other: &mut Socket| {
                    let mut wire = Vec::new();
                    while connection.wants_write() {
                        connection.write_tls(&mut wire).unwrap();
                    }
                    for byte in wire {
                        other.write_all(&[byte]).unwrap();
                    }
                };
                while connection.is_handshaking() {
                    flush(&mut connection, &mut other);
                    if connection.wants_read() {
                        connection.read_tls(&mut other).unwrap();
                        connection.process_new_packets().unwrap();
                    }
                }
                connection.writer().write_all(&sent).unwrap();
                flush(&mut connection, &mut other);
                other
            });
            let mut ours = world.ours(role, socket);
            handshake(&mut ours).await.unwrap();
            let mut got = vec![0; expected.len()];
            read_exactly(&mut ours, &mut got).await;
            assert!(got == expected);
            drop(theirs.join().unwrap());
        }
    }
}

#[tokio::test]
async fn much_goes_through_however_slowly_it_is_taken_and_whatever_the_buffer() {
    const SIZE: usize = 3_000_000;
    for world in worlds() {
        for (role, buffer) in [(Role::Server, 100), (Role::Server, 200_000), (Role::Client, 30_000)] {
            let (socket, other) = Socket::pair().unwrap();
            let theirs = peer(world.theirs(role), other, |connection, socket| {
                let mut stream = Wire(connection, socket);
                stream.write_all(&noise(SIZE)).unwrap();
                let mut got = vec![0; SIZE];
                for piece in got.chunks_mut(777) {
                    stream.read_exact(piece).unwrap();
                }
                got
            });
            let mut ours = world.ours(role, socket);
            handshake(&mut ours).await.unwrap();
            let mut got = Vec::new();
            let mut buffer = vec![0; buffer];
            while got.len() < SIZE {
                let count = read(&mut ours, &mut buffer).await.unwrap();
                got.extend_from_slice(&buffer[..count]);
            }
            assert!(got == noise(SIZE));
            let mut pending = Pending::default();
            let mut wrapped = Stream::Tls(Box::new(ours));
            for piece in got.chunks(150_000) {
                poll_fn(|cx| match pending.is_empty() {
                    true => pending.poll_send(cx, &mut wrapped, piece),
                    false => pending.poll_flush(cx, &mut wrapped),
                })
                .await
                .unwrap();
            }
            assert!(tokio::task::spawn_blocking(|| theirs.join().unwrap()).await.unwrap() == got);
        }
    }
}

#[tokio::test]
async fn a_write_that_waits_counts_what_was_encrypted_and_not_what_was_added_since() {
    for role in ROLES {
        let world = World::new(&rustls::version::TLS13);
        let (socket, other) = Socket::pair().unwrap();
        let (may_read, waits) = std::sync::mpsc::channel();
        let theirs = peer(world.theirs(role), other, move |connection, socket| {
            waits.recv().unwrap();
            let mut got = Vec::new();
            let read = Wire(connection, socket).read_to_end(&mut got);
            read.unwrap();
            got
        });
        let mut ours = world.ours(role, socket);
        handshake(&mut ours).await.unwrap();
        let mut bytes = noise(10_000_000);
        // Up to the point where the socket takes nothing more.
        let (mut at, end) = (0, 9_000_000);
        let mut first = 0;
        while let Poll::Ready(count) = poll_fn(|cx| {
            first = (end - at).min(50_000);
            Poll::Ready(ours.poll_write(cx, &bytes[at..at + first]))
        })
        .await
        {
            at += count.unwrap();
        }
        may_read.send(()).unwrap();
        // Repeated with more behind it.
        let count = poll_fn(|cx| ours.poll_write(cx, &bytes[at..])).await.unwrap();
        assert_eq!(count, first);
        bytes.truncate(at + count);
        shutdown(&mut ours).await;
        assert!(tokio::task::spawn_blocking(|| theirs.join().unwrap()).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn each_side_may_say_that_it_sends_nothing_more_and_still_be_sent_to() {
    for world in worlds() {
        for role in ROLES {
            let (socket, other) = Socket::pair().unwrap();
            let theirs = peer(world.theirs(role), other, |connection, socket| {
                connection.send_close_notify();
                while connection.wants_write() {
                    connection.write_tls(socket).unwrap();
                }
                let mut got = Vec::new();
                // `Ok`: with the close_notify that is owed.
                Wire(connection, socket).read_to_end(&mut got).map(|_| got)
            });
            let mut ours = world.ours(role, socket);
            handshake(&mut ours).await.unwrap();
            for _ in 0..2 {
                assert_eq!(read(&mut ours, &mut [0; 10]).await.unwrap(), 0);
            }
            write_all(&mut ours, b"the rest").await;
            shutdown(&mut ours).await;
            assert_eq!(theirs.join().unwrap().unwrap(), b"the rest");
        }
    }
}

#[tokio::test]
async fn an_end_without_a_word_is_an_end_for_a_server_and_a_cut_for_a_client() {
    for world in worlds() {
        for role in ROLES {
            let (socket, other) = Socket::pair().unwrap();
            let theirs = peer(world.theirs(role), other, |connection, socket| {
                Wire(connection, socket).write_all(b"so far").unwrap();
                // What was not read when a socket is closed would reset it.
                socket.shutdown(std::net::Shutdown::Write).unwrap();
                let _ = socket.read_to_end(&mut Vec::new());
            });
            let mut ours = world.ours(role, socket);
            handshake(&mut ours).await.unwrap();
            read_exactly(&mut ours, &mut [0; 6]).await;
            for _ in 0..2 {
                let end = read(&mut ours, &mut [0; 10]).await.map_err(|error| error.kind());
                let expected = if role == Role::Server { Ok(0) } else { Err(ErrorKind::UnexpectedEof) };
                assert_eq!(end, expected);
            }
            drop(ours);
            theirs.join().unwrap();
        }
    }
}

#[tokio::test]
async fn keys_may_change_at_any_time() {
    for role in ROLES {
        let world = World::new(&rustls::version::TLS13);
        let (socket, other) = Socket::pair().unwrap();
        let theirs = peer(world.theirs(role), other, |connection, socket| {
            for round in 0..5_u8 {
                // Asks for new keys of ours, too.
                connection.refresh_traffic_keys().unwrap();
                let mut stream = Wire(connection, socket);
                stream.write_all(&[round; 100]).unwrap();
                let mut got = [0; 100];
                stream.read_exact(&mut got).unwrap();
                assert_eq!(got, [round; 100]);
            }
        });
        let mut ours = world.ours(role, socket);
        handshake(&mut ours).await.unwrap();
        for _ in 0..5 {
            let mut got = [0; 100];
            read_exactly(&mut ours, &mut got).await;
            write_all(&mut ours, &got).await;
        }
        theirs.join().unwrap();
    }
}

#[tokio::test]
async fn tickets_are_no_noise_and_resume_sessions_in_both_roles() {
    for role in ROLES {
        for world in worlds() {
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let (socket, other) = Socket::pair().unwrap();
                let (told, waits) = std::sync::mpsc::channel();
                let theirs = peer(world.theirs(role), other, move |connection, socket| {
                    let mut stream = Wire(connection, socket);
                    stream.write_all(b"x").unwrap();
                    stream.read_exact(&mut [0; 1]).unwrap();
                    waits.recv().unwrap();
                    stream.write_all(b"noise").unwrap();
                    let _ = stream.read(&mut [0; 1]);
                    connection.handshake_kind()
                });
                let mut ours = world.ours(role, socket);
                handshake(&mut ours).await.unwrap();
                assert_eq!(ours.agreed().handshake_kind(), Some(kind), "{role:?}");
                read_exactly(&mut ours, &mut [0; 1]).await;
                write_all(&mut ours, b"x").await;
                assert!(ours.is_quiet());
                told.send(()).unwrap();
                while ours.is_quiet() {
                    tokio::task::yield_now().await;
                }
                let mut got = [0; 5];
                read_exactly(&mut ours, &mut got).await;
                assert_eq!(&got, b"noise");
                drop(ours);
                assert_eq!(theirs.join().unwrap(), Some(kind));
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_tls_is_answered_by_an_alert() {
    for (role, bytes) in
        [(Role::Server, &b"GET / HTTP/1.1\r\n\r\n"[..]), (Role::Client, b"HTTP/1.1 400 No\r\n")]
    {
        let world = World::new(&rustls::version::TLS13);
        let (socket, mut other) = Socket::pair().unwrap();
        other.write_all(bytes).unwrap();
        let mut ours = world.ours(role, socket);
        let error = handshake(&mut ours).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        shutdown(&mut ours).await;
        let mut got = Vec::new();
        other.read_to_end(&mut got).unwrap();
        // RFC 8446 §6: a record of type 21 with a fatal alert (2), at the end.
        let alert = &got[got.len() - 7..];
        assert_eq!((alert[0], alert[5]), (21, 2), "{got:?}");
    }
}

#[tokio::test]
async fn a_record_that_was_changed_on_its_way_is_an_error_and_stays_one() {
    for world in worlds() {
        for role in ROLES {
            let (socket, other) = Socket::pair().unwrap();
            let theirs = peer(world.theirs(role), other, |connection, socket| {
                // Not beside the end of the handshake.
                Wire(connection, socket).read_exact(&mut [0; 1]).unwrap();
                connection.writer().write_all(b"secret").unwrap();
                let mut wire = Vec::new();
                connection.write_tls(&mut wire).unwrap();
                *wire.last_mut().unwrap() ^= 1;
                socket.write_all(&wire).unwrap();
                let error = connection.complete_io(socket).unwrap_err();
                error.downcast::<rustls::Error>().unwrap()
            });
            let mut ours = world.ours(role, socket);
            handshake(&mut ours).await.unwrap();
            write_all(&mut ours, b"x").await;
            for _ in 0..2 {
                let error = read(&mut ours, &mut [0; 10]).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData);
            }
            let alert = rustls::AlertDescription::BadRecordMac;
            assert_eq!(theirs.join().unwrap(), rustls::Error::AlertReceived(alert));
            let refused = poll_fn(|cx| ours.poll_write(cx, b"x")).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
        }
    }
}

//! A client's connection to the proxy: TCP, or TLS over it.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use crate::poller::{connect, unless_blocked};

/// What a client says about TLS: one version, one cipher, one curve.
pub fn tls(ca: &Path, protocol: &str, resumes: bool) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let mut file = BufReader::new(File::open(ca)?);
    let authority =
        rustls::pki_types::CertificateDer::from_pem_reader(&mut file).map_err(io::Error::other)?;
    roots.add(authority).map_err(io::Error::other)?;
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    config.alpn_protocols = vec![protocol.into()];
    Ok(config.into())
}

/// A connection, and what it could not take yet.
pub struct Link {
    /// The socket.
    pub socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    waiting: Vec<u8>,
}

impl Link {
    /// Begins to connect, and to shake hands.
    pub fn open(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = tls
            .map(|config| ClientConnection::new(Arc::clone(config), name).map(Box::new))
            .transpose()
            .map_err(io::Error::other)?;
        Ok(Self { socket: connect(to)?, tls, waiting: Vec::new() })
    }

    /// Whether the handshake was a full one, of TLS.
    pub fn is_new_session(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.handshake_kind() != Some(HandshakeKind::Resumed))
    }

    /// Sends, now or when there is room: with [`Link::flush`].
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes)?,
            None if self.waiting.is_empty() => {
                let sent = unless_blocked(self.socket.write(bytes))?.unwrap_or(0);
                self.waiting.extend_from_slice(&bytes[sent..]);
                return Ok(());
            }
            None => self.waiting.extend_from_slice(bytes),
        }
        self.flush()
    }

    /// Sends what waits, as far as there is room.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                if unless_blocked(tls.write_tls(&mut self.socket))?.is_none() {
                    break;
                }
            }
        }
        while !self.waiting.is_empty() {
            let Some(count) = unless_blocked(self.socket.write(&self.waiting))? else { break };
            self.waiting.drain(..count);
        }
        Ok(())
    }

    /// Reads once and hands over what it came to; whether there may be more. `buffer` is for the time of the call.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let (received, plain) = buffer.split_at_mut(buffer.len() / 2);
        let Some(count) = unless_blocked(self.socket.read(received))? else { return Ok(false) };
        let may_be_more = count == received.len();
        if count == 0 {
            return Err(io::Error::other("the proxy has closed a connection"));
        }
        let Some(tls) = &mut self.tls else {
            return take(&received[..count]).map(|()| may_be_more);
        };
        let mut rest = &received[..count];
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            while let Some(count) = unless_blocked(tls.reader().read(plain))? {
                if count == 0 {
                    return Err(io::Error::other("the proxy has closed a TLS connection"));
                }
                take(&plain[..count])?;
            }
        }
        self.flush().map(|()| may_be_more)
    }
}

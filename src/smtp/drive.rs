//! Runs the protocol over tokio: sockets, TLS and time limits. The only part of [`crate::smtp`] that waits.

pub use client::{Client, Report, SessionFacts, Spent, Target, Timeouts};
pub use serve::{Handler, ServerConfig, ServerTimeouts, serve};
pub use tls::{ClientTls, TlsMode};

mod client;
mod serve;
mod tls;
mod wire;

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use postledger_events::address::{Address, Domain};
    use postledger_events::reply::Reply;
    use rustls::RootCertStore;
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Notify, Semaphore, mpsc};
    use tokio::task::JoinHandle;
    use tokio_rustls::{TlsAcceptor, TlsStream};
    use tokio_util::sync::CancellationToken;

    use super::wire::Stream;
    use super::*;
    use crate::smtp::client::{Credentials, Error, Fault, Phase, RecipientResult, Transaction};
    use crate::smtp::command::MailParameters;
    use crate::smtp::reply::reply;
    use crate::smtp::server::Envelope;
    use crate::smtp::tls::Verification;

    /// Long enough for a slow machine; only a test that fails waits for it.
    const PATIENCE: Duration = Duration::from_secs(20);
    const SOON: Duration = Duration::from_millis(50);
    const INTAKE_KIB: usize = 4 * 1024;

    // A certificate for localhost, and what trusts it.

    struct Identity {
        server: Arc<rustls::ServerConfig>,
        certificate: CertificateDer<'static>,
    }

    fn identity() -> Identity {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let certificate = made.cert.der().clone();
        let server =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], key.into())
                .unwrap();
        Identity { server: Arc::new(server), certificate }
    }

    fn trusting(identity: &Identity) -> ClientTls {
        let mut roots = RootCertStore::empty();
        roots.add(identity.certificate.clone()).unwrap();
        ClientTls::roots(roots)
    }

    // The client's side.

    async fn connect(addr: SocketAddr, tls: &TlsMode, auth: Option<&Credentials>) -> Result<Client, Error> {
        let target = Target { host: "localhost".to_owned(), addr };
        Client::connect(&target, tls, auth, &Domain::new("c.example").unwrap(), &Timeouts::all(PATIENCE)).await
    }

    fn transaction(recipients: &[&str], message: impl Into<Bytes>) -> Transaction {
        Transaction {
            reverse_path: Some(Address::parse("f@x.example").unwrap()),
            recipients: recipients.iter().map(|r| Address::parse(r).unwrap()).collect(),
            message: message.into(),
            eight_bit: false,
            smtputf8: false,
            require_tls: false,
        }
    }

    fn accepted(text: &str) -> RecipientResult {
        RecipientResult::Accepted { reply: Reply::new(250, text) }
    }

    fn rejected(code: u16, text: &str) -> RecipientResult {
        RecipientResult::Rejected { reply: Reply::new(code, text) }
    }

    // A peer that does as it is told.

    enum Turn {
        Say(&'static str),
        /// Reads until it has this.
        Until(&'static str),
        Tls,
    }

    struct Peer {
        addr: SocketAddr,
        task: JoinHandle<io::Result<String>>,
    }

    impl Peer {
        /// What it was told by the client.
        async fn heard(self) -> String {
            self.task.await.unwrap().unwrap()
        }
    }

    /// Takes one connection, does these turns, and closes.
    async fn peer(tls: Option<Arc<rustls::ServerConfig>>, turns: Vec<Turn>) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut stream = Stream::Clear(listener.accept().await?.0);
            let mut heard = Vec::new();
            for turn in turns {
                match turn {
                    Turn::Say(text) => {
                        stream.write_all(text.as_bytes()).await?;
                        stream.flush().await?;
                    }
                    Turn::Until(end) => {
                        while !heard.ends_with(end.as_bytes()) && stream.read_buf(&mut heard).await? > 0 {}
                    }
                    Turn::Tls => {
                        let Stream::Clear(clear) = stream else { panic!("TLS begins once") };
                        let accepted = TlsAcceptor::from(tls.clone().unwrap()).accept(clear).await?;
                        stream = Stream::Tls(Box::new(TlsStream::Server(accepted)));
                    }
                }
            }
            Ok(String::from_utf8(heard).unwrap())
        });
        Peer { addr, task }
    }

    fn greeting(ehlo: &'static str) -> Vec<Turn> {
        vec![Turn::Say("220 hi\r\n"), Turn::Until("EHLO c.example\r\n"), Turn::Say(ehlo)]
    }

    #[tokio::test]
    async fn a_pipelined_transaction() {
        let mut turns = greeting("250-mx.example\r\n250 PIPELINING\r\n");
        turns.extend([
            Turn::Until("DATA\r\n"),
            Turn::Say("250 m\r\n250 a\r\n550-5.1.1 no\r\n550 5.1.1 one\r\n452 4.5.3 full\r\n354 go\r\n"),
            Turn::Until("\r\n.\r\n"),
            Turn::Say("250 2.0.0 queued as 1\r\n"),
            Turn::Until("QUIT\r\n"),
        ]);
        let peer = peer(None, turns).await;
        let mut client = connect(peer.addr, &TlsMode::None, None).await.unwrap();
        let report = client.deliver(&transaction(&["a@y.example", "b@y.example", "c@y.example"], ".a\r\n")).await;
        let no_one = Reply { code: 550, lines: vec!["5.1.1 no".into(), "5.1.1 one".into()] };
        let expect = [
            accepted("2.0.0 queued as 1"),
            RecipientResult::Rejected { reply: no_one },
            RecipientResult::Again { reply: Some(Reply::new(452, "4.5.3 full")) },
        ];
        assert_eq!(report.recipients, expect);
        assert_eq!((report.bytes_sent, report.usable), (8, true));
        assert!(report.spent.mail_rcpt > Duration::ZERO && report.spent.last > Duration::ZERO);
        let facts = client.facts();
        assert_eq!((facts.remote_addr, facts.remote_host.as_str(), facts.reused), (peer.addr, "localhost", false));
        assert_eq!((&facts.greeting, facts.tls.as_ref()), (&Reply::new(220, "hi"), None));
        assert_eq!(facts.ehlo.lines, ["mx.example", "PIPELINING"]);
        client.quit().await;
        assert_eq!(
            peer.heard().await,
            "EHLO c.example\r\nMAIL FROM:<f@x.example>\r\nRCPT TO:<a@y.example>\r\nRCPT TO:<b@y.example>\r\n\
             RCPT TO:<c@y.example>\r\nDATA\r\n..a\r\n.\r\nQUIT\r\n"
        );
    }

    #[tokio::test]
    async fn a_connection_cut_behind_the_end_mark_leaves_the_outcome_open() {
        let mut turns = greeting("250-mx\r\n250 PIPELINING\r\n");
        turns.extend([
            Turn::Until("DATA\r\n"),
            Turn::Say("250 m\r\n250 a\r\n550 b\r\n354 go\r\n"),
            Turn::Until("\r\n.\r\n"),
        ]);
        let peer = peer(None, turns).await;
        let mut client = connect(peer.addr, &TlsMode::None, None).await.unwrap();
        let report = client.deliver(&transaction(&["a@y.example", "b@y.example"], "a\r\n")).await;
        assert!(report.recipients[0].is_outcome_unknown(), "{:?}", report.recipients[0]);
        assert_eq!(report.recipients[1], rejected(550, "b"));
        assert!(!report.usable && !client.is_usable());
    }

    #[tokio::test]
    async fn a_connection_cut_before_the_end_mark_does_not() {
        let mut turns = greeting("250 mx\r\n");
        turns.extend([Turn::Until("example>\r\n"), Turn::Say("250 m\r\n"), Turn::Until("a@y.example>\r\n")]);
        let peer = peer(None, turns).await;
        let mut client = connect(peer.addr, &TlsMode::None, None).await.unwrap();
        let report = client.deliver(&transaction(&["a@y.example"], "a\r\n")).await;
        let lost = RecipientResult::Lost { text: "the peer closed the connection".into(), at: Phase::Rcpt };
        assert_eq!(report.recipients, [lost]);
        assert!(!report.recipients[0].is_outcome_unknown());
    }

    #[tokio::test]
    async fn a_refusal_before_the_connection_closes_is_heard() {
        let peer1 = peer(None, vec![Turn::Say("554 5.7.1 go away\r\n")]).await;
        let error = connect(peer1.addr, &TlsMode::None, None).await.unwrap_err();
        assert_eq!((error.phase, error.fault, error.is_permanent()), (Phase::Greeting, Fault::Peer, true));
        assert_eq!(error.reply, Some(Reply::new(554, "5.7.1 go away")));

        // The second transaction finds that the peer has taken leave meanwhile.
        let mut turns = greeting("250 mx\r\n");
        turns.extend([Turn::Until("example>\r\n"), Turn::Say("550 m\r\n421 idle\r\n")]);
        let peer2 = peer(None, turns).await;
        let mut client = connect(peer2.addr, &TlsMode::None, None).await.unwrap();
        let first = client.deliver(&transaction(&["a@y.example"], "a\r\n")).await;
        assert_eq!((first.recipients, first.usable), (vec![rejected(550, "m")], true));
        peer2.heard().await;
        let second = client.deliver(&transaction(&["a@y.example"], "a\r\n")).await;
        let lost = RecipientResult::Lost { text: "the peer spoke out of turn: 421 idle".into(), at: Phase::Mail };
        assert_eq!((second.recipients, second.usable), (vec![lost], false));
        assert!(client.facts().reused);
    }

    #[tokio::test]
    async fn time_limits() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { host: "localhost".into(), addr: silent.local_addr().unwrap() };
        let name = Domain::new("c.example").unwrap();
        let timeouts = Timeouts { greeting: SOON, ..Timeouts::all(PATIENCE) };
        let error = Client::connect(&target, &TlsMode::None, None, &name, &timeouts).await.unwrap_err();
        assert_eq!((error.phase, error.fault), (Phase::Greeting, Fault::Network));
        assert_eq!(error.to_string(), "greeting: no answer within 0.05 s");
        drop(silent);
        let error = Client::connect(&target, &TlsMode::None, None, &name, &timeouts).await.unwrap_err();
        assert_eq!((error.phase, error.fault), (Phase::Connect, Fault::Network));
    }

    #[tokio::test]
    async fn what_is_no_smtp_is_the_peers_fault() {
        let peer = peer(None, vec![Turn::Say("SSH-2.0-x\r\n")]).await;
        let error = connect(peer.addr, &TlsMode::None, None).await.unwrap_err();
        assert_eq!((error.phase, error.fault, error.reply), (Phase::Greeting, Fault::Peer, None));
    }

    #[tokio::test]
    async fn replies_in_the_clear_behind_starttls_are_refused() {
        let identity = identity();
        let mut turns = greeting("250-mx\r\n250 STARTTLS\r\n");
        turns.extend([Turn::Until("STARTTLS\r\n"), Turn::Say("220 go\r\n250-mx\r\n250 AUTH PLAIN\r\n")]);
        let peer = peer(None, turns).await;
        let error = connect(peer.addr, &TlsMode::StartTls(trusting(&identity)), None).await.unwrap_err();
        assert_eq!((error.phase, error.fault), (Phase::StartTls, Fault::Peer));
    }

    #[tokio::test]
    async fn a_password_goes_over_verified_tls_only() {
        let identity = identity();
        let credentials = Credentials { username: "u".into(), password: "p".to_owned().into() };
        let mut turns = greeting("250-mx\r\n250 STARTTLS\r\n");
        turns.extend([
            Turn::Until("STARTTLS\r\n"),
            Turn::Say("220 go\r\n"),
            Turn::Tls,
            Turn::Until("EHLO c.example\r\n"),
            Turn::Say("250-mx\r\n250 AUTH PLAIN\r\n"),
            Turn::Until("AUTH PLAIN AHUAcA==\r\n"),
            Turn::Say("235 welcome\r\n"),
        ]);
        let peer1 = peer(Some(identity.server.clone()), turns).await;
        let client = connect(peer1.addr, &TlsMode::StartTls(trusting(&identity)), Some(&credentials)).await.unwrap();
        assert_eq!(client.facts().tls.as_ref().unwrap().verification, Verification::Roots);
        peer1.heard().await;

        let turns = vec![
            Turn::Tls,
            Turn::Say("220 hi\r\n"),
            Turn::Until("EHLO c.example\r\n"),
            Turn::Say("250-mx\r\n250 AUTH PLAIN\r\n"),
            Turn::Until("\0"),
        ];
        let peer2 = peer(Some(identity.server.clone()), turns).await;
        let error =
            connect(peer2.addr, &TlsMode::Implicit(ClientTls::unverified()), Some(&credentials)).await.unwrap_err();
        assert_eq!((error.phase, error.fault), (Phase::Auth, Fault::Operator));
        assert_eq!(peer2.task.await.unwrap().unwrap_or_default().matches("AUTH").count(), 0);
    }

    #[tokio::test]
    async fn a_certificate_that_does_not_verify() {
        let (ours, other) = (identity(), identity());
        let mut turns = greeting("250-mx\r\n250 STARTTLS\r\n");
        turns.extend([Turn::Until("STARTTLS\r\n"), Turn::Say("220 go\r\n"), Turn::Tls]);
        let peer = peer(Some(ours.server.clone()), turns).await;
        let error = connect(peer.addr, &TlsMode::StartTls(trusting(&other)), None).await.unwrap_err();
        assert_eq!((error.phase, error.fault, error.is_permanent()), (Phase::Tls, Fault::Peer, false), "{error}");
    }

    // Our own server.

    struct Taken {
        envelope: Envelope,
        data: Bytes,
    }

    /// Gives what it takes to the test. Refuses localparts `no`, never answers for `slow`, and waits with its reply for `gate`.
    struct Recorder {
        taken: mpsc::UnboundedSender<Taken>,
        gate: Option<Arc<Notify>>,
    }

    impl Handler for Recorder {
        fn mail(&mut self, _: Option<&Address>, _: &MailParameters) -> Result<(), Reply> {
            Ok(())
        }

        async fn rcpt(&mut self, to: &Address) -> Result<(), Reply> {
            match to.localpart.as_str() {
                "no" => Err(reply(550, (1, 1), "not here")),
                "slow" => std::future::pending().await,
                _ => Ok(()),
            }
        }

        async fn message(&mut self, envelope: Envelope, data: Bytes) -> Reply {
            self.taken.send(Taken { envelope, data }).unwrap();
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            reply(250, (0, 0), "stored")
        }

        fn reset(&mut self) {}
    }

    struct Server {
        addr: SocketAddr,
        taken: mpsc::UnboundedReceiver<Taken>,
        intake: Arc<Semaphore>,
        shutdown: CancellationToken,
        gate: Option<Arc<Notify>>,
        session: JoinHandle<io::Result<()>>,
    }

    /// Serves one connection.
    async fn server(tls: Option<Arc<rustls::ServerConfig>>, intake_kib: usize, gate: Option<Arc<Notify>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let timeouts = ServerTimeouts { room: SOON, ..ServerTimeouts::default() };
        let hostname = Domain::new("mx.example").unwrap();
        let config = Arc::new(ServerConfig { hostname, size_max: 8 * 1024 * 1024, tls, timeouts });
        let (sender, taken) = mpsc::unbounded_channel();
        let (intake, shutdown) = (Arc::new(Semaphore::new(intake_kib)), CancellationToken::new());
        let handler = Recorder { taken: sender, gate: gate.clone() };
        let session = tokio::spawn({
            let (intake, shutdown) = (intake.clone(), shutdown.clone());
            async move { serve(listener.accept().await?.0, config, handler, intake, shutdown).await }
        });
        Server { addr, taken, intake, shutdown, gate, session }
    }

    #[tokio::test]
    async fn from_our_client_to_our_server() {
        let identity = identity();
        let mut server = server(Some(identity.server.clone()), INTAKE_KIB, None).await;
        let mut client = connect(server.addr, &TlsMode::StartTls(trusting(&identity)), None).await.unwrap();

        let large = ".line of a large message\r\n".repeat(100_000);
        let report = client.deliver(&transaction(&["a@y.example", "no@y.example", "b@y.example"], large.clone())).await;
        let stored = accepted("2.0.0 stored");
        assert_eq!(report.recipients, [stored.clone(), rejected(550, "5.1.1 not here"), stored.clone()]);
        let taken = server.taken.recv().await.unwrap();
        assert!(taken.data == large, "the message is the same");
        let to: Vec<String> = taken.envelope.recipients.iter().map(Address::to_string).collect();
        assert_eq!(to, ["a@y.example", "b@y.example"]);
        assert_eq!((taken.envelope.helo.as_str(), taken.envelope.eight_bit), ("c.example", false));
        assert_eq!(Some(&taken.envelope.peer), Some(&client.facts().local_addr));

        let utf8 = Transaction {
            reverse_path: None,
            smtputf8: true,
            require_tls: true,
            ..transaction(&["\"ü ü\"@y.example"], "Subject: ü\r\n\r\n")
        };
        assert_eq!(client.deliver(&utf8).await.recipients, [stored]);
        let Taken { envelope, data } = server.taken.recv().await.unwrap();
        assert_eq!((envelope.reverse_path, &data), (None, &utf8.message));
        assert_eq!((envelope.smtputf8, envelope.eight_bit, envelope.require_tls), (true, true, true));
        let (theirs, ours) = (envelope.tls.unwrap(), client.facts().tls.clone().unwrap());
        assert_eq!((theirs.protocol.as_str(), &theirs.cipher), ("TLSv1.3", &ours.cipher));
        assert_eq!((theirs.verification, ours.verification), (Verification::None, Verification::Roots));
        assert!(ours.cipher.starts_with("TLS13_") && client.facts().reused);

        client.quit().await;
        server.session.await.unwrap().unwrap();
        assert_eq!(server.intake.available_permits(), INTAKE_KIB);
    }

    #[tokio::test]
    async fn a_thousand_recipients_and_the_rest_again() {
        let mut server = server(None, INTAKE_KIB, None).await;
        let mut client = connect(server.addr, &TlsMode::Opportunistic(ClientTls::unverified()), None).await.unwrap();
        let recipients: Vec<String> = (0..1001).map(|n| format!("r{n}@y.example")).collect();
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let report = client.deliver(&transaction(&recipients, "a\r\n")).await;
        assert_eq!(report.recipients[..1000], vec![accepted("2.0.0 stored"); 1000]);
        assert_eq!(report.recipients[1000], RecipientResult::Again { reply: None });
        assert_eq!(server.taken.recv().await.unwrap().envelope.recipients.len(), 1000);
    }

    #[tokio::test]
    async fn messages_without_room_come_again() {
        const SMALL_KIB: usize = 128;
        let mut server = server(None, SMALL_KIB, None).await;
        let mut client = connect(server.addr, &TlsMode::None, None).await.unwrap();
        let large = "line\r\n".repeat(50_000);
        let no_room = rejected(451, "4.3.1 no room for the message now, try again later");
        assert_eq!(client.deliver(&transaction(&["a@y.example"], large)).await.recipients, [no_room]);
        let small = client.deliver(&transaction(&["a@y.example"], "a\r\n")).await;
        assert_eq!(small.recipients, [accepted("2.0.0 stored")]);
        assert_eq!(server.intake.available_permits(), SMALL_KIB, "an idle session holds no room");
        assert_eq!(server.taken.recv().await.unwrap().data, "a\r\n");
        client.quit().await;
        server.session.await.unwrap().unwrap();
        assert_eq!(server.intake.available_permits(), SMALL_KIB);
    }

    /// Says all of it at once, and hears the answers to the end.
    async fn talk(addr: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let (mut read, mut write) = stream.split();
        let mut heard = String::new();
        let (wrote, _) = tokio::join!(write.write_all(text.as_bytes()), read.read_to_string(&mut heard));
        wrote.unwrap();
        heard
    }

    #[tokio::test]
    async fn content_of_unannounced_size_without_room_is_read_over() {
        const SMALL_KIB: usize = 128;
        let server = server(None, SMALL_KIB, None).await;
        let content = "line\r\n".repeat(50_000);
        let text = format!("HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@y>\r\nDATA\r\n{content}.\r\nNOOP\r\nQUIT\r\n");
        let heard = talk(server.addr, &text).await;
        assert!(
            heard.ends_with(
                "354 end with <CRLF>.<CRLF>\r\n451 4.3.1 no room for the message now, try again later\r\n250 2.0.0 ok\r\n\
                 221 2.0.0 bye\r\n"
            ),
            "{heard}"
        );
        server.session.await.unwrap().unwrap();
        assert_eq!(server.intake.available_permits(), SMALL_KIB);
    }

    #[tokio::test]
    async fn the_last_reply_survives_unread_input() {
        let server = server(None, INTAKE_KIB, None).await;
        let heard = talk(server.addr, &format!("NOOP\n{}QUIT\r\n", "NOOP\r\n".repeat(20_000))).await;
        assert!(heard.ends_with("500 5.5.2 lines end in CRLF, and CR and LF stand nowhere else\r\n"), "{heard}");
    }

    #[tokio::test]
    async fn an_idle_session_ends_at_shutdown() {
        let server = server(None, INTAKE_KIB, None).await;
        server.shutdown.cancel();
        let heard = talk(server.addr, "").await;
        assert_eq!(heard, "220 mx.example ESMTP\r\n421 4.3.2 shutting down, try again later\r\n");
    }

    /// Reads on until this came.
    async fn hear(stream: &mut TcpStream, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "{:?} came", String::from_utf8_lossy(&heard));
        }
        String::from_utf8(heard).unwrap()
    }

    #[tokio::test]
    async fn content_is_read_to_its_end_before_shutdown() {
        let mut server = server(None, INTAKE_KIB, None).await;
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@y>\r\nDATA\r\n").await.unwrap();
        hear(&mut stream, "354 end with <CRLF>.<CRLF>\r\n").await;
        server.shutdown.cancel();
        stream.write_all(b"a\r\n.\r\n").await.unwrap();
        let heard = hear(&mut stream, "later\r\n").await;
        assert_eq!(heard, "250 2.0.0 stored\r\n421 4.3.2 shutting down, try again later\r\n");
        assert_eq!(server.taken.recv().await.unwrap().data, "a\r\n");
    }

    #[tokio::test]
    async fn a_message_is_finished_before_shutdown() {
        let mut server = server(None, INTAKE_KIB, Some(Arc::new(Notify::new()))).await;
        let mut client = connect(server.addr, &TlsMode::None, None).await.unwrap();
        let message = transaction(&["a@y.example"], "a\r\n");
        let (report, ()) = tokio::join!(client.deliver(&message), async {
            server.taken.recv().await.unwrap();
            server.shutdown.cancel();
            server.gate.as_ref().unwrap().notify_one();
        });
        assert_eq!(report.recipients, [accepted("2.0.0 stored")]);
        drop(client);
        server.session.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_recipient_that_takes_long_does_not_hold_up_shutdown_nor_earlier_replies() {
        let server = server(None, INTAKE_KIB, None).await;
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<slow@y>\r\n").await.unwrap();
        hear(&mut stream, "250 2.1.0 sender ok\r\n").await;
        server.shutdown.cancel();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), "421 4.3.2 shutting down, try again later\r\n");
    }
}

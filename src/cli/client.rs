//! Calls the native API: on the control socket of the server that runs on a directory, or in this process without one.

use std::io;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::{Method, Request, Response, header};
use axum::response::IntoResponse;
use hyper_util::rt::TokioIo;
use postledger_web::api::PREFIX;
use postledger_web::api::page::{LIMIT_MAX, Page};
use postledger_web::peer::LocalUser;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tower::ServiceExt;

use super::error::Error;
use super::query::Query;
use crate::{ledger, run};

/// Bytes of an answer that is read as a whole.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The API of one directory.
pub enum Client {
    /// Of a running server.
    Socket(PathBuf),
    /// The directory is open in this process, under its lock.
    Embedded(run::Embedded, LocalUser),
}

impl Client {
    pub async fn open(dir: &Path) -> Result<Client, Error> {
        match Client::of_server(dir).await? {
            Some(client) => Ok(client),
            None => embed(dir).await,
        }
    }

    /// `None`: no server runs on the directory.
    pub async fn of_server(dir: &Path) -> Result<Option<Client>, Error> {
        let path = dir.join(run::SOCKET);
        match UnixStream::connect(&path).await {
            Ok(_) => Ok(Some(Client::Socket(path))),
            // A socket that refuses is left over from a server that is gone; the lock tells whether that is so.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(e) => Err(Error::Socket { path, why: e.to_string() }),
        }
    }

    pub async fn close(&mut self) -> Result<(), Error> {
        match std::mem::replace(self, Client::Socket(PathBuf::new())) {
            Client::Socket(_) => Ok(()),
            Client::Embedded(embedded, _) => Ok(embedded.close().await?),
        }
    }

    pub async fn get<T: DeserializeOwned>(&self, query: Query) -> Result<T, Error> {
        parse(self.request(Method::GET, &query, Body::empty()).await?).await
    }

    /// All pages of a list, at most `max` items.
    pub async fn list<T: DeserializeOwned>(&self, query: Query, max: usize) -> Result<Vec<T>, Error> {
        let (mut all, mut cursor) = (Vec::new(), None);
        while all.len() < max {
            let limit = LIMIT_MAX.min(max - all.len());
            let page = query.clone().with("cursor", cursor.as_ref()).with("limit", Some(limit));
            let page: Page<T> = self.get(page).await?;
            all.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(all)
    }

    /// Sends JSON and reads the answer.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        query: Query,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        parse(self.request(method, &query, json(body)).await?).await
    }

    /// Like [`Client::send`], with an Idempotency-Key, if there is one.
    pub async fn send_keyed<T: DeserializeOwned>(
        &self,
        method: Method,
        query: Query,
        body: &impl Serialize,
        key: Option<&str>,
    ) -> Result<T, Error> {
        parse(self.request_keyed(method, &query, json(body), key).await?).await
    }

    /// Sends JSON; the answer has nothing in it.
    pub async fn tell(&self, method: Method, query: Query, body: &impl Serialize) -> Result<(), Error> {
        self.request(method, &query, json(body)).await.map(|_| ())
    }

    pub async fn delete(&self, query: Query) -> Result<Response<Body>, Error> {
        self.request(Method::DELETE, &query, Body::empty()).await
    }

    /// The answer as it comes, if it is none of a problem.
    pub async fn stream(&self, query: Query) -> Result<Body, Error> {
        Ok(self.request(Method::GET, &query, Body::empty()).await?.into_body())
    }

    pub async fn request(&self, method: Method, query: &Query, body: Body) -> Result<Response<Body>, Error> {
        self.request_keyed(method, query, body, None).await
    }

    async fn request_keyed(
        &self,
        method: Method,
        query: &Query,
        body: Body,
        key: Option<&str>,
    ) -> Result<Response<Body>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{query}"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(body).map_err(|e| Error::Usage(format!("this cannot be asked for: {e}")))?;
        let response = match self {
            Client::Socket(path) => over_socket(path, request).await?,
            Client::Embedded(embedded, user) => in_process(embedded, user, request).await,
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = whole(response.into_body()).await?;
        let details = serde_json::from_slice(&bytes).map_err(|_| Error::Answer(format!("status {status}")))?;
        Err(Error::Refused(details))
    }
}

async fn embed(dir: &Path) -> Result<Client, Error> {
    let owned = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || run::embedded(&owned)).await;
    let opened = opened.map_err(|e| Error::Failed(format!("opening {} failed: {e}", dir.display())))?;
    match opened {
        Ok(embedded) => Ok(Client::Embedded(embedded, run::this_user())),
        Err(run::Error::Open(e @ ledger::open::Error::NoLedger { .. })) => Err(Error::NoLedger(e)),
        Err(e) => Err(e.into()),
    }
}

async fn over_socket(path: &Path, request: Request<Body>) -> Result<Response<Body>, Error> {
    let failed = |e: &dyn std::error::Error| Error::Socket { path: path.to_owned(), why: e.to_string() };
    let stream = UnixStream::connect(path).await.map_err(|e| failed(&e))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| failed(&e))?;
    // What goes wrong on the connection is told to whoever waits for the answer or its body.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
    Ok(response.map(Body::new))
}

async fn in_process(embedded: &run::Embedded, user: &LocalUser, mut request: Request<Body>) -> Response<Body> {
    request.extensions_mut().insert(user.clone());
    match embedded.router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => never.into_response(),
    }
}

fn json(body: &impl Serialize) -> Body {
    Body::from(serde_json::to_vec(body).expect("requests have string keys only"))
}

pub async fn parse<T: DeserializeOwned>(response: Response<Body>) -> Result<T, Error> {
    let bytes = whole(response.into_body()).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Answer(e.to_string()))
}

pub async fn whole(body: Body) -> Result<bytes::Bytes, Error> {
    axum::body::to_bytes(body, ANSWER_BYTES_MAX).await.map_err(|e| Error::Broken(e.to_string()))
}

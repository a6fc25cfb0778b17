//! Pairing (`/ws`) and pipes (`/connection/:A/:B/:document`) the usual way on tokio: one thread, one task per
//! connection, `fastwebsockets` for the frames, `hyper` for the handshake. Something to measure Parlor against.

mod outbox;
mod pairing;
mod pipe;

use std::convert::Infallible;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request, upgrade};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

use crate::outbox::Writes;
use crate::pairing::Lobby;
use crate::pipe::{Pipes, Route};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Server {
    lobby: Lobby,
    pipes: Pipes,
}

enum Endpoint {
    Pairing,
    Pipe(Route),
}

fn main() -> io::Result<()> {
    let server = Rc::new(Server {
        lobby: Lobby::new(number_from_environment("MAX_MSG_PER_SECOND", 40), writes_from_environment()),
        pipes: Pipes::default(),
    });
    let port = number_from_environment("PORT", 8080_u16);
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(listen(port, server))
}

fn number_from_environment<N: std::str::FromStr>(name: &str, default: N) -> N {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// `WRITES`: `each` is the usual way and the default, `merged` the faster one.
fn writes_from_environment() -> Writes {
    match std::env::var("WRITES").as_deref() {
        Ok("merged") => Writes::Merged,
        _ => Writes::Each,
    }
}

async fn listen(port: u16, server: Rc<Server>) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        // Out of file descriptors, or a client that was gone before it was accepted: the next one may fare better.
        let Ok((stream, _)) = listener.accept().await else { continue };
        spawn_local(serve_http(stream, Rc::clone(&server)));
    }
}

async fn serve_http(stream: TcpStream, server: Rc<Server>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let response = answer(request, &server);
        async { Ok::<_, Infallible>(response) }
    });
    // An error is the client's, and the client is gone with it.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

fn answer(mut request: Request<Incoming>, server: &Rc<Server>) -> Response<Empty<Bytes>> {
    let Some(endpoint) = endpoint(request.uri().path()) else { return refusal(StatusCode::NOT_FOUND) };
    if !is_upgrade_request(&request) {
        return refusal(StatusCode::UPGRADE_REQUIRED);
    }
    let Ok((response, upgraded)) = upgrade(&mut request) else { return refusal(StatusCode::BAD_REQUEST) };
    spawn_local(serve_websocket(upgraded, endpoint, Rc::clone(server)));
    response
}

fn endpoint(path: &str) -> Option<Endpoint> {
    match path.split('/').skip(1).collect::<Vec<_>>()[..] {
        ["ws"] => Some(Endpoint::Pairing),
        ["connection", own, other, document] => Some(Endpoint::Pipe(Route::new(own, other, document))),
        _ => None,
    }
}

fn refusal(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

async fn serve_websocket(upgraded: UpgradeFut, endpoint: Endpoint, server: Rc<Server>) {
    let Ok(websocket) = upgraded.await else { return };
    // Back to the bare socket: reading and writing through hyper's box would cost a virtual call each.
    let Ok(parts) = websocket.into_inner().into_inner().downcast::<TokioIo<TcpStream>>() else { return };
    let stream = parts.io.into_inner();
    match endpoint {
        Endpoint::Pairing => pairing::serve(stream, parts.read_buf, &server.lobby).await,
        Endpoint::Pipe(route) => pipe::serve(stream, parts.read_buf, route, &server.pipes).await,
    }
}

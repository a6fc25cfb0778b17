//! A plain HTTP GET, for what a server says about itself. Blocks: only the directing thread asks.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::target::Target;
use crate::failure::Failure;

/// What an answer may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The body of the answer to `GET path`.
pub(crate) fn get(target: &Target, path: &str) -> Result<String, Failure> {
    let lost = |error: std::io::Error| Failure::Server(format!("GET {path}: {error}"));
    let mut stream = TcpStream::connect_timeout(&target.address, DEADLINE).map_err(lost)?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(lost)?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.url.authority());
    stream.write_all(request.as_bytes()).map_err(lost)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(lost)?;
    body(&String::from_utf8_lossy(&answer), path)
}

fn body(answer: &str, path: &str) -> Result<String, Failure> {
    let status = answer.lines().next().unwrap_or_default();
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) if status.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        Some(_) | None => Err(Failure::Server(format!("GET {path}: the server says `{status}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_follows_the_head_of_a_200() {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(body(good, "/x").expect("good"), "{}");
        let refused = body("HTTP/1.1 403 Forbidden\r\n\r\n{}", "/x").expect_err("refused");
        assert!(refused.to_string().contains("403"), "{refused}");
        assert!(body("HTTP/1.1 200 OK", "/x").is_err());
    }
}

//! A line to the registry that can be cut, and on which one can listen.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

pub(crate) struct Proxy {
    /// The registry's URL by this line.
    pub(crate) url: String,
    line: Arc<Line>,
    listener: JoinHandle<()>,
}

struct Line {
    upstream: String,
    heard: Mutex<Vec<u8>>,
    /// The connections, or none while the line is cut.
    open: Mutex<Option<Vec<AbortHandle>>>,
}

impl Proxy {
    pub(crate) async fn to(url: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap();
        let (upstream, path) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/{path}", listener.local_addr().unwrap());
        let upstream = upstream.to_owned();
        let line = Line { upstream, heard: Mutex::default(), open: Mutex::new(Some(Vec::new())) };
        let line = Arc::new(line);
        let listener = tokio::spawn(accept(listener, line.clone()));
        Self { url, line, listener }
    }

    /// Cuts the line: connections break, new ones are closed at once.
    pub(crate) fn cut(&self) {
        for connection in self.line.open.lock().unwrap().take().into_iter().flatten() {
            connection.abort();
        }
    }

    pub(crate) fn mend(&self) {
        *self.line.open.lock().unwrap() = Some(Vec::new());
    }

    /// What was sent to the registry.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.line.heard.lock().unwrap()).into_owned()
    }

    /// How many requests were sent whose first line begins so.
    pub(crate) fn count(&self, begin: &str) -> usize {
        self.heard().lines().filter(|line| line.starts_with(begin)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, line: Arc<Line>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        if let Some(open) = line.open.lock().unwrap().as_mut() {
            open.push(tokio::spawn(connect(client, line.clone())).abort_handle());
        }
    }
}

async fn connect(client: TcpStream, line: Arc<Line>) {
    let server = TcpStream::connect(&line.upstream).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let mut part = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_client.read(&mut part).await {
            line.heard.lock().unwrap().extend(&part[..count]);
            to_server.write_all(&part[..count]).await.unwrap();
        }
    };
    let back = async { drop(tokio::io::copy(&mut from_server, &mut to_client).await) };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

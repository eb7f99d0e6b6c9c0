//! One TCP connection of a test, at the level of bytes: what was sent is what was meant, also when it is wrong.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::wait::PATIENCE;

/// A connection with the bytes that were read too far. Reads fail after `PATIENCE`, so nothing hangs.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    held: Vec<u8>,
}

/// A head of HTTP/1, request or response.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its first line.
    pub first: String,
    /// Names as spelled, and values, in order.
    pub fields: Vec<(String, String)>,
}

impl Wire {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens there.
    pub fn dial(to: SocketAddr) -> Wire {
        let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"));
        Wire::over(stream)
    }

    /// Takes a connected stream.
    pub fn over(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, held: Vec::new() }
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// A second handle, to write while another thread reads. It sees none of the bytes read too far.
    pub fn twin(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// Writes all of it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Writes all of it, a segment a byte.
    pub fn send_byte_by_byte(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            self.stream.write_all(std::slice::from_ref(byte)).unwrap();
        }
        self
    }

    /// Asks for a tunnel as most clients do and reads the answer.
    pub fn connect(&mut self, target: &str) -> Head {
        self.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")).head()
    }

    /// Asks for a tunnel and insists on it.
    ///
    /// # Panics
    /// When the answer is not 200.
    pub fn tunnel(mut self, target: &str) -> Wire {
        let head = self.connect(target);
        assert_eq!(head.status(), 200, "CONNECT {target}: {}\n{}", head.first, self.rest_as_text());
        self
    }

    /// One GET in absolute-form and its answer.
    pub fn get(&mut self, url: &str) -> (Head, Vec<u8>) {
        let host = url.split('/').nth(2).unwrap();
        self.send(format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.answer("GET")
    }

    /// Reads a head.
    ///
    /// # Panics
    /// When the other side ends or resets before it is complete.
    pub fn head(&mut self) -> Head {
        self.try_head().unwrap_or_else(|error| panic!("no head: {error}; so far: {:?}", self.held_as_text()))
    }

    /// Reads a head.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other side ends before it is complete, and those of the socket.
    pub fn try_head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(end) = find(&self.held, b"\r\n\r\n") {
                let bytes: Vec<u8> = self.held.drain(..end + 4).collect();
                return Ok(Head::parse(&bytes));
            }
            if self.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads a final response to a request of this method, body decoded from its framing. Skips 1xx.
    ///
    /// # Panics
    /// When it is cut short.
    pub fn answer(&mut self, method: &str) -> (Head, Vec<u8>) {
        let mut head = self.head();
        while head.status() / 100 == 1 && head.status() != 101 {
            head = self.head();
        }
        let body = self.body(method, &head).unwrap_or_else(|error| panic!("body of {}: {error}", head.first));
        (head, body)
    }

    /// Reads the body that belongs to a response head.
    ///
    /// # Errors
    /// `UnexpectedEof` when it is cut short, and those of the socket.
    pub fn body(&mut self, method: &str, head: &Head) -> io::Result<Vec<u8>> {
        let status = head.status();
        if method == "HEAD" || status / 100 == 1 || status == 204 || status == 304 {
            return Ok(Vec::new());
        }
        if head.field("transfer-encoding").is_some() {
            return Ok(self.chunked()?.0);
        }
        match head.field("content-length") {
            Some(length) => self.try_exactly(length.parse().unwrap()),
            None => self.until_end(),
        }
    }

    /// Reads a chunked body: its content, and its trailer section as spelled.
    ///
    /// # Errors
    /// `UnexpectedEof` when it is cut short, `InvalidData` when a size is none.
    pub fn chunked(&mut self) -> io::Result<(Vec<u8>, String)> {
        let mut content = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("chunk size {line:?}")))?;
            if size == 0 {
                break;
            }
            content.extend(self.try_exactly(size)?);
            self.try_exactly(2)?;
        }
        let mut trailers = String::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((content, trailers));
            }
            trailers.push_str(&line);
            trailers.push_str("\r\n");
        }
    }

    /// Reads a line without its CRLF.
    ///
    /// # Errors
    /// `UnexpectedEof` when it does not end, and those of the socket.
    pub fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.held, b"\r\n") {
                let bytes: Vec<u8> = self.held.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&bytes[..end]).into_owned());
            }
            if self.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads so many bytes.
    ///
    /// # Panics
    /// When fewer come.
    pub fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        self.try_exactly(bytes)
            .unwrap_or_else(|error| panic!("{bytes} bytes: {error}, after {:?}", self.held_as_text()))
    }

    /// Reads so many bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when fewer come, and those of the socket.
    pub fn try_exactly(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.held.len() < bytes {
            if self.read_more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.held.drain(..bytes).collect())
    }

    /// Reads until the other side ends.
    ///
    /// # Errors
    /// Those of the socket; `ConnectionReset` tells a reset from an end.
    pub fn until_end(&mut self) -> io::Result<Vec<u8>> {
        while self.read_more()? > 0 {}
        Ok(std::mem::take(&mut self.held))
    }

    /// Sends these bytes through the tunnel and expects them back.
    ///
    /// # Panics
    /// When something else comes.
    pub fn echo(&mut self, bytes: &[u8]) {
        self.send(bytes);
        assert_eq!(self.exactly(bytes.len()), bytes, "the echo differs");
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends with a reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Whether nothing comes within `time`: no byte, no end, no reset.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let silent = matches!(self.read_more(), Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    fn rest_as_text(&mut self) -> String {
        self.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        while matches!(self.read_more(), Ok(more) if more > 0) {}
        self.held_as_text()
    }

    fn held_as_text(&self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let got = uninterrupted(|| self.stream.read(&mut buffer))?;
        self.held.extend_from_slice(&buffer[..got]);
        Ok(got)
    }
}

/// A read with a deadline is interrupted by whatever stops and continues the process (signal(7)).
fn uninterrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

impl Read for Wire {
    /// What was read too far first, then from the socket.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.held.is_empty() {
            return uninterrupted(|| self.stream.read(buffer));
        }
        let got = buffer.len().min(self.held.len());
        for (to, from) in buffer.iter_mut().zip(self.held.drain(..got)) {
            *to = from;
        }
        Ok(got)
    }
}

impl Head {
    /// Splits a head; strictness is not its business.
    pub fn parse(bytes: &[u8]) -> Head {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .take_while(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        Head { first, fields }
    }

    /// The status of a response.
    ///
    /// # Panics
    /// When the first line is no status line.
    pub fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no status line: {:?}", self.first))
    }

    /// The value of the first field of this name, whatever its case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// The values of all fields of this name, whatever its case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

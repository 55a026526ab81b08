//! A connection to one server and to no other, whatever becomes of it: what tests compare the store's own idea with.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A connection of one's own.
#[derive(Debug)]
pub struct Bare {
    stream: BufReader<TcpStream>,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Nil,
    /// A text, also one that is no error but says how it went.
    Text(String),
    /// A number.
    Number(i64),
    /// Several.
    List(Vec<Self>),
    /// A refusal.
    Error(String),
}

impl Answer {
    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Nil | Self::Number(_) | Self::List(_) | Self::Error(_) => "",
        }
    }

    /// The parts, if there are several.
    #[must_use]
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            Self::Nil | Self::Number(_) | Self::Text(_) | Self::Error(_) => &[],
        }
    }
}

impl Bare {
    /// Connects to a port of the loopback; an answer may take `patience`.
    ///
    /// # Errors
    /// Those of connecting.
    pub fn connect(port: u16, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Runs a command.
    ///
    /// # Errors
    /// Those of the connection; afterwards it is of no use.
    pub fn call(&mut self, command: &[&str]) -> io::Result<Answer> {
        let mut text = format!("*{}\r\n", command.len());
        for word in command {
            text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(text.as_bytes())?;
        self.answer()
    }

    /// The same, for a command that the server must not refuse.
    ///
    /// # Errors
    /// Those of the connection, and a refusal.
    pub fn sure(&mut self, command: &[&str]) -> io::Result<Answer> {
        match self.call(command)? {
            Answer::Error(error) => Err(io::Error::other(error)),
            answer @ (Answer::Nil | Answer::Text(_) | Answer::Number(_) | Answer::List(_)) => Ok(answer),
        }
    }

    /// All keys that look like that.
    ///
    /// # Errors
    /// As [`sure`](Self::sure).
    pub fn keys(&mut self, pattern: &str) -> io::Result<Vec<String>> {
        let (mut keys, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let answer = self.sure(&["SCAN", &cursor, "MATCH", pattern, "COUNT", "1000"])?;
            let [next, page] = answer.list() else { return Err(ErrorKind::InvalidData.into()) };
            keys.extend(page.list().iter().map(|key| key.text().to_owned()));
            next.text().clone_into(&mut cursor);
            if cursor == "0" {
                return Ok(keys);
            }
        }
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or(ErrorKind::UnexpectedEof)?;
        let number = || rest.parse::<i64>().map_err(|_| ErrorKind::InvalidData);
        Ok(match kind {
            "+" => Answer::Text(rest.to_owned()),
            "-" => Answer::Error(rest.to_owned()),
            ":" => Answer::Number(number()?),
            "$" => match usize::try_from(number()?) {
                Ok(length) => self.bytes(length)?,
                Err(_) => Answer::Nil,
            },
            "*" => match usize::try_from(number()?) {
                Ok(count) => Answer::List((0..count).map(|_| self.answer()).collect::<io::Result<_>>()?),
                Err(_) => Answer::Nil,
            },
            _ => return Err(ErrorKind::InvalidData.into()),
        })
    }

    fn bytes(&mut self, length: usize) -> io::Result<Answer> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(Answer::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

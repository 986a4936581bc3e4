//! `tidegate token`: makes, lists and revokes access tokens.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::access::{Token, TokenHash, secret};
use crate::cli::output::{print, print_json, table};
use crate::cli::{TokenArgs, TokenCommand, check};
use crate::config::{Config, environment};
use crate::token_file::{self, TokenFileError};

pub(crate) fn token(args: TokenArgs) -> anyhow::Result<()> {
    match args.command {
        TokenCommand::New { name, role, file } => {
            let path = place(file)?;
            let mut random = [0; 32];
            getrandom::fill(&mut random).context("the operating system gives no random numbers")?;
            let shown = secret(random);
            told(token_file::add(&path, &Token { name: name.clone(), role, hash: TokenHash::of(&shown) }))?;
            let mut stderr = std::io::stderr();
            // The token alone goes to standard output, for scripts.
            let _ = writeln!(
                stderr,
                "{} holds the hash of `{name}`, {role}. This is its token, shown only now; give it as TIDEGATE_TOKEN:",
                path.display()
            );
            print(&shown)
        }
        TokenCommand::List { file, json } => {
            let path = place(file)?;
            let tokens = told(token_file::load(&path).map_err(TokenFileError::Bad))?;
            if json {
                let shown =
                    |token: &Token| serde_json::json!({"name": token.name.as_str(), "role": token.role.as_str()});
                return print_json(&tokens.iter().map(shown).collect::<Vec<_>>());
            }
            let head = vec!["name".to_owned(), "role".to_owned()];
            let rows = tokens.iter().map(|token| vec![token.name.to_string(), token.role.to_string()]);
            print(&table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 2))
        }
        TokenCommand::Revoke { name, file } => {
            let path = place(file)?;
            told(token_file::remove(&path, &name))?;
            print(&format!("`{name}` is revoked: a running gateway takes it no more, within seconds"))
        }
    }
}

/// The file that is meant: the one named, or the configuration's.
fn place(named: crate::cli::TokenFileArg) -> anyhow::Result<PathBuf> {
    if let Some(file) = named.file {
        return Ok(file);
    }
    match Config::load(named.config.config.as_deref(), &environment()) {
        Ok(config) => config.admin.token_file.context(
            "the configuration names no file of tokens; add `token_file = \"tokens.toml\"` under `[admin]`, or use `--file`",
        ),
        Err(problems) => {
            check::tell(&problems)?;
            bail!("the configuration cannot be used; mend what is named above, or use `--file`");
        }
    }
}

fn told<T>(result: Result<T, TokenFileError>) -> anyhow::Result<T> {
    if let Err(TokenFileError::Bad(problems)) = &result {
        check::tell(problems)?;
    }
    Ok(result?)
}

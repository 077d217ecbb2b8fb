//! `keyside operators`: who may use the control plane. By the control plane itself; or, while it is stopped, in its store:
//! for the first admin, and for a password that was lost.

use std::{io::Read as _, path::PathBuf, sync::Arc};

use http::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::{
    Exit,
    keys::{
        console::{Console, Failure, Output},
        create::{name, text},
        list::{plain, table},
        remote::{Remote, RemoteArgs, encoded},
    },
};
use crate::{
    config,
    control::{
        answer::Problem,
        api::view::{NewToken, OperatorView},
        caller::Caller,
        desk::Desk,
        ledger::Ledger,
        operators::{self, OperatorChange},
        store::{self, Operator, Role},
    },
    keys::secret::Secret,
};

/// Say who may use the control plane: operators, their roles, passwords and tokens.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: PlaceArgs,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORM")]
    output: Output,
}

/// Where the operators are.
#[derive(Debug, clap::Args)]
struct PlaceArgs {
    /// The control plane's configuration: its store is changed, while it is stopped.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "control")]
    config: Option<PathBuf>,
    /// A running control plane.
    #[arg(long, value_name = "URL", global = true)]
    control: Option<String>,
    /// A file with an admin's token; default: KEYSIDE_CONTROL_TOKEN of the environment.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// The authority that the control plane's certificate is checked against; default: those of the system.
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
}

/// What operators may do, as `--help` says it.
fn roles() -> String {
    format!("What they may do: {}", Role::table())
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add an operator; without a password, one that has tokens alone.
    Create {
        /// The name to sign in with.
        #[arg(value_name = "NAME")]
        operator: String,
        #[arg(long, value_name = "viewer|operator|admin", value_parser = text::<Role>, help = roles())]
        role: Role,
        /// A file with the password; - reads it from standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List operators and their tokens.
    List,
    /// Change an operator's role or password; their sessions end.
    Set {
        /// The operator.
        #[arg(value_name = "NAME")]
        operator: String,
        #[arg(long, value_name = "viewer|operator|admin", value_parser = text::<Role>, help = roles())]
        role: Option<Role>,
        /// A file with the new password; - reads it from standard input.
        #[arg(long, value_name = "FILE", conflicts_with = "no_password")]
        password_file: Option<PathBuf>,
        /// Take the password away: they have tokens alone.
        #[arg(long)]
        no_password: bool,
    },
    /// Remove an operator, with tokens and sessions.
    Delete {
        /// The operator.
        #[arg(value_name = "NAME")]
        operator: String,
        /// Do not ask for the name.
        #[arg(long)]
        yes: bool,
    },
    /// Make a token for an operator, which is printed once; or take one away.
    Token {
        /// The operator.
        #[arg(value_name = "NAME")]
        operator: String,
        /// What it is for.
        #[arg(long, value_name = "TEXT", value_parser = name, required_unless_present = "delete")]
        name: Option<String>,
        /// When it expires: 90d, or 2027-02-19T00:00:00Z; default: never.
        #[arg(long, value_name = "WHEN", requires = "name")]
        expires: Option<String>,
        /// Take the token of this id away.
        #[arg(long, value_name = "ID", conflicts_with = "name")]
        delete: Option<String>,
    },
}

/// Where the operators are.
enum Place {
    Remote(Box<Remote>),
    Store { runtime: Runtime, desk: Arc<Desk>, system: Caller },
}

pub(super) fn run(args: &Args) -> Exit {
    Console::run(args.output, |console| args.run(console))
}

impl PlaceArgs {
    fn open(&self) -> Result<Place, Failure> {
        let remote =
            RemoteArgs { control: self.control.clone(), token_file: self.token_file.clone(), ca: self.ca.clone() };
        if let Some(remote) = remote.open()? {
            return Ok(Place::Remote(Box::new(remote)));
        }
        let config = self.config.as_ref();
        let config = config.ok_or_else(|| Failure::usage("say where: --control URL, or --config control.toml"))?;
        let loaded = config::control::load(config, config::environment())
            .map_err(|faults| Failure { exit: Exit::Misconfigured, message: faults.to_string() })?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::of(&error))?;
        let desk = runtime.block_on(async {
            let place = store::Settings { place: loaded.settings.store.clone(), create: true };
            let ledger = Ledger::open(store::open(&place).await?).await?;
            Desk::new(loaded.settings, ledger).await
        });
        Ok(Place::Store { runtime, desk: desk.map_err(|error| Failure::of(&error))?, system: Caller::system(None) })
    }
}

impl Args {
    fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let place = self.place.open()?;
        let done = self.run_at(&place, console);
        if let Place::Store { runtime, desk, .. } = &place {
            runtime.block_on(desk.ledger.store().close());
        }
        done.map(|()| Exit::Done)
    }

    fn run_at(&self, place: &Place, console: &mut Console<'_>) -> Result<(), Failure> {
        match &self.command {
            Command::Create { operator, role, password_file } => {
                let password = password_file.as_ref().map(|file| password(file, console)).transpose()?;
                let made = place.create(operator, *role, password)?;
                console.say(format_args!("Operator {operator} is added, as {}.", role.as_str()));
                print(console, &made)
            }
            Command::List => list(console, &place.list()?),
            Command::Set { operator, role, password_file, no_password } => {
                let password = match (password_file, no_password) {
                    (Some(file), _) => Some(Some(password(file, console)?)),
                    (None, true) => Some(None),
                    (None, false) => None,
                };
                if role.is_none() && password.is_none() {
                    return Err(Failure::usage("nothing to change: give --role, --password-file or --no-password"));
                }
                let changed = place.set(operator, *role, password)?;
                console.say(format_args!("Operator {operator} is changed."));
                print(console, &changed)
            }
            Command::Delete { operator, yes } => {
                if !yes {
                    console
                        .confirm(&format!("Operator {operator}, and all of their tokens, will be gone."), operator)?;
                }
                place.delete(operator)?;
                console.say(format_args!("Operator {operator} is deleted."));
                print(console, &json!({ "name": operator, "deleted": true }))
            }
            Command::Token { operator, name, expires, delete } => match (name, delete) {
                (_, Some(id)) => {
                    place.delete_token(operator, id)?;
                    console.say(format_args!("Token {id} of {operator} is deleted."));
                    print(console, &json!({ "id": id, "deleted": true }))
                }
                (Some(name), None) => {
                    let made = place.token(operator, name, expires.as_deref())?;
                    match console.output {
                        Output::Json => console.hand_over(format_args!("{made:#}"))?,
                        Output::Table => console.hand_over(made["token"].as_str().unwrap_or_default())?,
                    }
                    console.say("Keep the token now: only its digest was stored, and it is not shown again.");
                    Ok(())
                }
                (None, None) => Err(Failure::usage("give --name, or --delete")),
            },
        }
    }
}

fn print(console: &mut Console<'_>, value: &Value) -> Result<(), Failure> {
    if console.output == Output::Json { console.print_json(value) } else { Ok(()) }
}

fn list(console: &mut Console<'_>, operators: &Value) -> Result<(), Failure> {
    if console.output == Output::Json {
        return console.print_json(operators);
    }
    let rows = operators.as_array().into_iter().flatten().map(|operator| {
        let tokens = operator["tokens"].as_array().into_iter().flatten();
        let tokens: Vec<String> =
            tokens.map(|token| format!("{} ({})", plain(&token["id"]), plain(&token["name"]))).collect();
        let password = if operator["password"] == true { "yes" } else { "no" };
        let tokens = if tokens.is_empty() { "-".to_owned() } else { tokens.join(", ") };
        vec![
            plain(&operator["name"]),
            plain(&operator["role"]),
            password.to_owned(),
            plain(&operator["created_at"]),
            tokens,
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        console.say("No operators.");
        return Ok(());
    }
    console.print(table(&["NAME", "ROLE", "PASSWORD", "CREATED", "TOKENS"], rows))
}

/// A password, without the line break that follows it.
fn password(file: &PathBuf, console: &mut Console<'_>) -> Result<Secret, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = if file.as_os_str() == "-" {
        console.input.take(4096).read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(file).map(|read| *text = read)
    };
    read.map_err(|error| Failure::new(format!("cannot read the password from {}: {error}", file.display())))?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).as_bytes()))
}

fn exposed(password: Option<Secret>) -> Value {
    password.map(|password| String::from_utf8_lossy(password.expose()).into_owned()).into()
}

fn shown(operator: &Operator) -> Value {
    json!(OperatorView::from(operator))
}

fn refused(problem: Problem) -> Failure {
    Failure::new(problem.message)
}

fn path(operator: &str) -> String {
    format!("/v1/operators/{}", encoded(operator))
}

impl Place {
    fn list(&self) -> Result<Value, Failure> {
        match self {
            Self::Remote(remote) => Ok(remote.ask(Method::GET, "/v1/operators", None)?["operators"].clone()),
            Self::Store { desk, system, .. } => {
                let operators = operators::list(desk, system).map_err(refused)?;
                Ok(operators.iter().map(shown).collect())
            }
        }
    }

    fn create(&self, operator: &str, role: Role, password: Option<Secret>) -> Result<Value, Failure> {
        match self {
            Self::Remote(remote) => {
                let body = json!({ "name": operator, "role": role.as_str(), "password": exposed(password) });
                remote.ask(Method::POST, "/v1/operators", Some(&body))
            }
            Self::Store { runtime, desk, system } => {
                let made = operators::create(desk, system, operator, role, password);
                runtime.block_on(made).map(|operator| shown(&operator)).map_err(refused)
            }
        }
    }

    fn set(&self, operator: &str, role: Option<Role>, password: Option<Option<Secret>>) -> Result<Value, Failure> {
        match self {
            Self::Remote(remote) => {
                let mut body = json!({});
                if let Some(role) = role {
                    body["role"] = role.as_str().into();
                }
                if let Some(password) = password {
                    body["password"] = exposed(password);
                }
                remote.ask(Method::PATCH, &path(operator), Some(&body))
            }
            Self::Store { runtime, desk, system } => {
                let change = OperatorChange { role, password };
                let changed = operators::change(desk, system, operator, change);
                runtime.block_on(changed).map(|operator| shown(&operator)).map_err(refused)
            }
        }
    }

    fn delete(&self, operator: &str) -> Result<(), Failure> {
        match self {
            Self::Remote(remote) => remote.ask(Method::DELETE, &path(operator), None).map(|_| ()),
            Self::Store { runtime, desk, system } => {
                runtime.block_on(operators::delete(desk, system, operator)).map_err(refused)
            }
        }
    }

    fn token(&self, operator: &str, name: &str, expires: Option<&str>) -> Result<Value, Failure> {
        match self {
            Self::Remote(remote) => {
                let body = json!({ "name": name, "expires_at": expires });
                remote.ask(Method::POST, &format!("{}/tokens", path(operator)), Some(&body))
            }
            Self::Store { runtime, desk, system } => {
                let made = operators::create_token(desk, system, operator, name, expires);
                runtime.block_on(made).map(|made| json!(NewToken::from(&made))).map_err(refused)
            }
        }
    }

    fn delete_token(&self, operator: &str, id: &str) -> Result<(), Failure> {
        match self {
            Self::Remote(remote) => {
                let path = format!("{}/tokens/{}", path(operator), encoded(id));
                remote.ask(Method::DELETE, &path, None).map(|_| ())
            }
            Self::Store { runtime, desk, system } => {
                let deleted = operators::delete_token(desk, system, operator, id);
                runtime.block_on(deleted).map_err(refused)
            }
        }
    }
}

//! The crate as others get it: packaged, and compiled inside another project, whose database has
//! nothing to do with ours.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::SystemTime,
};

use sqlx::Connection as _;

/// Its header is the application's own: without the feature `opentelemetry`, it means nothing to the library.
const MAIN: &str = r#"
#[tokio::main]
async fn main() -> pgqrs::Result<()> {
    let url = std::env::args().nth(1).expect("the database's URL");
    let store = pgqrs::connect(&url).await?;
    pgqrs::admin(&store).install().await?;
    pgqrs::admin(&store).create_queue("tasks").await?;
    pgqrs::enqueue()
        .message(&"hello")
        .header("traceparent", "of my own")
        .to("tasks")
        .execute(&store)
        .await?;
    for delivery in pgqrs::dequeue().from("tasks").execute(&store).await? {
        print!("{} {:?}", delivery.payload()?, delivery.headers().get("traceparent"));
        delivery.ack(&store).await?;
    }
    Ok(())
}
"#;

#[test]
fn the_packaged_crate_compiles_offline_whatever_database_the_user_has_and_runs() {
    let downstream = Downstream::new();
    let live = env::var("DATABASE_URL").expect("`cargo xtask test` sets it");

    downstream.builds("no variables", None);
    downstream.builds(
        "an unreachable database",
        Some("postgres://nobody@127.0.0.1:9/nothing"),
    );
    downstream.builds("a live database without our tables", Some(&live));
    downstream.builds("another kind of database", Some("sqlite:app.db"));
    fs::write(
        downstream.folder.join(".env"),
        "DATABASE_URL=postgres://nobody@127.0.0.1:9/nothing\n",
    )
    .expect("a parent folder's .env is written");
    downstream.builds("a .env in a parent folder", None);
    assert_eq!(downstream.runs(&live), r#""hello" Some("of my own")"#);

    // Shows that the test can fail: without our build script, the same variable breaks the build.
    fs::remove_file(downstream.library.join("build.rs")).expect("it is packaged");
    let output = downstream.build(Some("postgres://nobody@127.0.0.1:9/nothing"));
    assert!(
        !output.status.success(),
        "the build script makes no difference"
    );
}

struct Downstream {
    /// Outside of the checkout; holds the library and the application side by side.
    folder: PathBuf,
    library: PathBuf,
    application: PathBuf,
    target: PathBuf,
}

impl Downstream {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("xtask lies in the checkout");
        // Half of the dependencies are there already.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let target = target.expect("it lies below the target folder").to_owned();
        // The same for each run, since the target folder keeps what is compiled in each folder.
        let mut hasher = DefaultHasher::new();
        root.hash(&mut hasher);
        let folder = env::temp_dir().join(format!("pgqrs-downstream-{:x}", hasher.finish()));
        let _ = fs::remove_dir_all(&folder);
        let application = folder.join("application");
        fs::create_dir_all(application.join("src")).expect("a temporary folder can be written");

        // Which also builds what it has packed, with what cargo has fetched already.
        let packaged = cargo()
            .args([
                "package",
                "--package",
                "pgqrs",
                // An optional dependency, which isn't on crates.io before it is published together with it.
                "--package",
                "local-postgres",
                "--offline",
                "--allow-dirty",
                "--quiet",
            ])
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .current_dir(root)
            .output()
            .expect("cargo starts");
        assert!(
            packaged.status.success(),
            "{}",
            String::from_utf8_lossy(&packaged.stderr)
        );
        let [package, server] = ["pgqrs", "local-postgres"].map(|package| {
            let package = format!("{package}-{}", env!("CARGO_PKG_VERSION"));
            let unpacked = Command::new("tar")
                .arg("-xzf")
                .arg(target.join("package").join(format!("{package}.crate")))
                .arg("-C")
                .arg(&folder)
                .status()
                .expect("tar starts");
            assert!(unpacked.success());
            package
        });

        let manifest = format!(
            "[package]\nname = \"application\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\n[dependencies]\n\
             pgqrs = {{ path = \"../{package}\" }}\n\
             tokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n\n\
             [patch.crates-io]\nlocal-postgres = {{ path = \"../{server}\" }}\n"
        );
        fs::write(application.join("Cargo.toml"), manifest).expect("written");
        fs::write(application.join("src/main.rs"), MAIN).expect("written");
        // The versions that the checkout is tested with.
        fs::copy(root.join("Cargo.lock"), application.join("Cargo.lock")).expect("copied");
        Self {
            library: folder.join(package),
            folder,
            application,
            target,
        }
    }

    fn builds(&self, environment: &str, database_url: Option<&str>) {
        let output = self.build(database_url);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "with {environment}:\n{said}");
        assert!(
            said.contains("Compiling pgqrs"),
            "with {environment}, the crate was not compiled anew"
        );
    }

    /// Returns its output.
    fn runs(&self, server: &str) -> String {
        let database = format!("downstream_{}", std::process::id());
        execute(server, format!("create database {database}"));
        let mut url = server.to_owned();
        let path = url.rfind('/').expect("a URL has a path");
        url.replace_range(path + 1.., &database);
        let ran = Command::new(self.target.join("debug/application"))
            .arg(url)
            .output();
        execute(server, format!("drop database {database} with (force)"));
        let ran = ran.expect("it starts");
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        String::from_utf8(ran.stdout).expect("text")
    }

    fn build(&self, database_url: Option<&str>) -> Output {
        // Only a fresh compilation expands the statements again.
        let source = fs::File::options()
            .append(true)
            .open(self.library.join("src/lib.rs"));
        let source = source.expect("it is packaged");
        source
            .set_modified(SystemTime::now())
            .expect("it can be touched");
        let mut build = cargo();
        build
            .arg("build")
            .current_dir(&self.application)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        if let Some(url) = database_url {
            build.env("DATABASE_URL", url);
        }
        build.output().expect("cargo starts")
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn execute(server: &str, statement: String) {
    let runtime = tokio::runtime::Runtime::new().expect("started");
    let executed = runtime.block_on(async {
        let mut connection = sqlx::PgConnection::connect(server).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
    });
    executed.expect("executed");
}

/// With nothing of what this test itself was started with.
fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let ours = [
        "DATABASE_URL",
        "PGQRS_PREPARE_URL",
        "SQLX_OFFLINE",
        "SQLX_OFFLINE_DIR",
    ];
    for variable in ours {
        cargo.env_remove(variable);
    }
    // Those of xtask, because of which some build scripts would run again, and what depends on them be compiled again.
    for (variable, _) in env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&variable);
        }
    }
    cargo
}

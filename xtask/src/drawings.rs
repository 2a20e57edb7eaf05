//! The drawings of the guide. A page has them as Mermaid, which repositories' pages draw and rustdoc doesn't. For
//! rustdoc they are drawn once, as SVG in the colours of its themes: users of the crate need neither Mermaid nor a network,
//! to read it or to compile. A house test notices a drawing that isn't of its page's source.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::cargo;

/// The colours with which Mermaid draws, and the variables of rustdoc's themes that take their places.
const COLOURS: [(&str, &str); 4] = [
    ("#010101", "var(--main-color)"),
    ("#020202", "var(--code-block-background-color)"),
    ("#030303", "var(--main-background-color)"),
    ("#040404", "var(--border-color)"),
];
const TEXT: usize = 0;
const SHAPE: usize = 1;
const PAGE: usize = 2;
const BORDER: usize = 3;

/// Mermaid's variables, each with the colour that it has.
const VARIABLES: [(usize, &[&str]); 4] = [
    (
        TEXT,
        &[
            "actorLineColor",
            "actorTextColor",
            "labelTextColor",
            "lineColor",
            "noteTextColor",
            "primaryTextColor",
            "signalColor",
            "signalTextColor",
            "specialStateColor",
            "stateLabelColor",
            "textColor",
            "transitionColor",
            "transitionLabelColor",
        ],
    ),
    (
        SHAPE,
        &[
            "actorBkg",
            "labelBoxBkgColor",
            "mainBkg",
            "noteBkgColor",
            "primaryColor",
            "stateBkg",
        ],
    ),
    (
        PAGE,
        &[
            "background",
            "edgeLabelBackground",
            "innerEndBackground",
            "labelBackgroundColor",
        ],
    ),
    (
        BORDER,
        &[
            "actorBorder",
            "nodeBorder",
            "noteBorderColor",
            "primaryBorderColor",
            "stateBorder",
        ],
    ),
];

/// In the page, each drawing takes the place of its source.
const SCRIPT: &str = r#"<script>
for (const drawing of document.querySelectorAll("template[data-source]")) {
    for (const code of document.querySelectorAll("pre.language-mermaid")) {
        if (code.textContent.trim() === drawing.dataset.source.trim()) {
            (code.closest(".example-wrap") ?? code).replaceWith(drawing.content.cloneNode(true));
        }
    }
}
</script>
"#;

/// Draws what each page of the guide has as Mermaid, into a file beside it.
pub(crate) async fn run() -> Result<()> {
    let mut pages: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(cargo::root().join("docs/guide"))? {
        pages.push(entry?.path());
    }
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    for page in pages {
        let text = fs::read_to_string(&page)?;
        let sources = sources(&text);
        if !sources.is_empty() {
            draw_page(&page, &sources).await?;
        }
    }
    Ok(())
}

/// The Mermaid on a page.
fn sources(page: &str) -> Vec<&str> {
    let blocks = page.split("```mermaid\n").skip(1);
    blocks
        .filter_map(|block| block.split("\n```").next())
        .collect()
}

async fn draw_page(page: &Path, sources: &[&str]) -> Result<()> {
    let name = page.file_stem().context("a page has a name")?;
    let name = name.to_string_lossy();
    let mut html = format!("<!-- Made by `cargo xtask drawings` of {name}.md; don't edit. -->\n\n");
    for (index, source) in sources.iter().enumerate() {
        let svg = draw(&format!("{name}-{index}"), source).await?;
        html += &format!(
            "<template data-source=\"{}\">\n{svg}\n</template>\n\n",
            attribute(source)
        );
    }
    html += SCRIPT;
    let file = page.with_extension("html");
    fs::write(&file, html)?;
    println!("{}", file.display());
    Ok(())
}

fn attribute(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\n', "&#10;")
}

/// Draws by the command of Mermaid, which npm fetches, in the Chromium that is installed.
async fn draw(name: &str, source: &str) -> Result<String> {
    let folder = cargo::target().join("drawings");
    fs::create_dir_all(&folder)?;
    let [input, output, config, browser] = ["mmd", "svg", "config.json", "browser.json"]
        .map(|extension| folder.join(format!("{name}.{extension}")));
    let variables = VARIABLES.iter().flat_map(|(colour, names)| {
        let value = COLOURS[*colour].0;
        names.iter().map(move |name| format!("{name:?}: {value:?}"))
    });
    let variables: Vec<_> = variables.collect();
    let settings = format!(
        r#"{{"theme": "base", "htmlLabels": false, "flowchart": {{"htmlLabels": false}}, "fontFamily": "sans-serif",
"themeCSS": ".edgeLabel rect {{ fill: {} !important; opacity: 1 !important }}", "themeVariables": {{"fontFamily": "sans-serif", {}}}}}"#,
        COLOURS[PAGE].0,
        variables.join(", ")
    );
    fs::write(&input, source)?;
    fs::write(&config, settings)?;
    let chromium = chromium().context("Chromium isn't installed; Debian: `chromium`")?;
    let launch = format!(r#"{{"executablePath": {chromium:?}, "args": ["--no-sandbox"]}}"#);
    fs::write(&browser, launch)?;
    let status = Command::new("npx")
        .args(["--yes", "--package", "@mermaid-js/mermaid-cli@11", "mmdc"])
        .args([
            "--quiet",
            "--svgId",
            name,
            "--backgroundColor",
            "transparent",
        ])
        .arg("--input")
        .arg(&input)
        .arg("--output")
        .arg(&output)
        .arg("--configFile")
        .arg(&config)
        .arg("--puppeteerConfigFile")
        .arg(&browser)
        .env("PUPPETEER_SKIP_DOWNLOAD", "1")
        .stdin(Stdio::null())
        .status()
        .await
        .context("npx doesn't start; it comes with npm")?;
    ensure!(status.success(), "Mermaid doesn't draw {name} ({status})");
    let mut svg = fs::read_to_string(&output)?;
    for (colour, variable) in COLOURS {
        svg = svg.replace(colour, variable);
    }
    // An empty line would end the block of HTML in the page.
    let svg = without_data(&svg);
    let lines = svg.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Leaves out what scripts of Mermaid would read.
fn without_data(svg: &str) -> String {
    let mut parts = svg.split(" data-");
    let mut rest = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part
            .split_once("=\"")
            .and_then(|(_, value)| value.split_once('"'));
        rest += after.map_or(part, |(_, after)| after);
    }
    rest
}

fn chromium() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .flat_map(|folder| {
            ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name))
        })
        .find(|file| file.is_file())
}

//! The live page in a real browser.

use std::{path::PathBuf, time::Duration};

use podpool::testkit::Cluster;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    browser::Browser,
    service::{SOON, Service},
};

/// Fifty requests a second until it is aborted, whatever becomes of them; at most for five minutes.
fn load(service: &Service) -> JoinHandle<()> {
    let address = service.address();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..15_000 {
            tick.tick().await;
            tokio::spawn(async move {
                if let Ok(mut connection) = crate::http::Connection::open(address).await {
                    let _ = connection.ask("GET", "/query?target=any", "").await;
                }
            });
        }
    })
}

/// The state that the card of each Pod shows, in order.
const STATES: &str =
    "return [...document.querySelectorAll('.card')].map(card => card.querySelector('.state').textContent)";

/// Whether a Pod's card shows a state: the word, and the colour of its class.
fn shows(addr: &str, state: &str) -> String {
    format!(
        "const card = document.querySelector('.card[data-addr=\"{addr}\"]');
         return card && card.classList.contains('{state}') && card.querySelector('.state').textContent.endsWith('{state}')"
    )
}

/// The path of a Pod's plot.
fn plot(addr: &str) -> String {
    format!("return document.querySelector('.card[data-addr=\"{addr}\"] .picks').getAttribute('points')")
}

/// Where pictures are to be put, when they are wanted.
fn pictures() -> Option<PathBuf> {
    std::env::var_os("PODPOOL_SCREENSHOTS").map(PathBuf::from)
}

async fn picture(browser: &Browser, name: &str) {
    if let Some(directory) = pictures() {
        std::fs::create_dir_all(&directory).expect("the directory of the pictures");
        let file = directory.join(name);
        std::fs::write(&file, browser.picture().await).expect("a picture");
        println!("{}", file.display());
    }
}

async fn size(browser: &Browser, width: u32, height: u32, scheme: &str) {
    let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
    browser.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    browser.devtools("Emulation.setEmulatedMedia", scheme).await;
}

/// Nothing is wider than the screen, and every text stands out from what is behind it by 4.5 to 1 (WCAG 2.2, 1.4.3).
async fn assert_readable(browser: &Browser, what: &str) {
    let wide = browser.run("return document.scrollingElement.scrollWidth - window.innerWidth").await;
    assert!(wide.as_f64().expect("a number") <= 0.0, "{what}: wider than the screen by {wide} px");
    let script = r"
        const light = colour => {
          const [r, g, b] = colour.match(/[\d.]+/g).map(part => {
            const c = Number(part) / 255;
            return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = node => {
          for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (!/, 0\)$/.test(colour)) return colour;
          }
          return 'rgb(255, 255, 255)';
        };
        const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [];
        let checked = 0;
        for (let node; node = texts.nextNode();) {
          const parent = node.parentElement;
          if (!node.data.trim() || !parent.checkVisibility() || /SCRIPT|STYLE|NOSCRIPT/.test(parent.tagName)) continue;
          const pair = [light(getComputedStyle(parent).color), light(behind(parent))].sort((a, b) => b - a);
          const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
          checked++;
          if (contrast < 4.5) faint.push(`${node.data.trim()}: ${contrast.toFixed(2)}`);
        }
        return { checked, faint };";
    let found = browser.run(script).await;
    assert!(found["checked"].as_u64().expect("a number") > 20, "{what}: {found}");
    assert_eq!(found["faint"], json!([]), "{what}");
}

/// The page of a real service on real Pods: it shows three Pods, sees one die and come back, and asks nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn sees_a_pod_die_and_come_back() {
    let Some(browser) = Browser::start().await else { return };
    let cluster = Cluster::start(3).await.expect("three Pods");
    // Found by SRV records, which tell the Pods' names.
    let service = Service::start(&cluster.srv_url()).await;
    service.eventually("/readyz", |answer| answer.body["usable"] == 3).await;
    let load = load(&service);
    size(&browser, 1280, 900, "light").await;
    browser.go(&format!("http://{}/", service.address())).await;
    browser
        .until(
            SOON,
            "three healthy Pods",
            &format!("return ({{}}, (() => {{ {STATES} }})()).join() === '● healthy,● healthy,● healthy'"),
        )
        .await;

    // The plots move: readings come, and each of the Pods has its part.
    let victim = cluster.pod(1).address().ip().to_string();
    browser
        .until(
            SOON,
            "ten readings with traffic on every Pod",
            "return [...document.querySelectorAll('.card')].every(card => {
        const points = card.querySelector('.picks').getAttribute('points').split(' ');
        return points.length >= 10 && / [1-9][0-9]? %/.test(' ' + card.querySelector('.part').textContent);
    })",
        )
        .await;
    let before = browser.run(&plot(&victim)).await;
    assert_readable(&browser, "light, 1280 wide").await;
    picture(&browser, "before.png").await;

    cluster.kill(1).await.expect("a kill");
    browser.until(SOON, "the card of the killed Pod turns", &shows(&victim, "ejected")).await;
    browser
        .until(
            SOON,
            "the event is told",
            "return [...document.querySelectorAll('#events .bad')].some(line => line.textContent.includes('ejected'))",
        )
        .await;
    browser
        .until(SOON, "the event is marked in time", "return document.querySelectorAll('#marks path.bad').length")
        .await;
    browser
        .until(
            SOON,
            "the plot moves and falls to the ground",
            &format!(
                "const points = (() => {{ {} }})();
        return points !== {before} && points.split(' ').at(-1).endsWith(',97.0')",
                plot(&victim)
            ),
        )
        .await;
    browser
        .until(
            Duration::from_secs(30),
            "the others have its share",
            &format!(
                "return document.querySelector('.card[data-addr=\"{victim}\"] .part').textContent.startsWith('0 %')"
            ),
        )
        .await;
    picture(&browser, "after.png").await;

    // The same on a phone and in the dark.
    size(&browser, 360, 800, "dark").await;
    assert_readable(&browser, "dark, a phone").await;
    picture(&browser, "phone.png").await;
    size(&browser, 1280, 900, "light").await;

    // By keyboard alone: the first stop is the button, which stops the page and lets it go on.
    browser.press("\u{e004}\u{e00d}").await;
    let pressed = "return document.activeElement.id + ' ' + document.activeElement.getAttribute('aria-pressed')";
    assert_eq!(browser.run(pressed).await, "pause true");
    browser.press("\u{e00d}").await;
    assert_eq!(browser.run(pressed).await, "pause false");

    cluster.start_pod(1).await.expect("a start");
    browser.until(SOON, "the card turns back", &shows(&victim, "healthy")).await;

    let outside = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name).filter(name => !name.startsWith(location.origin))").await;
    assert_eq!(outside, json!([]), "the page asked somebody else");
    let complaints: Vec<Value> = browser.console().await.into_iter().filter(|line| line["level"] == "SEVERE").collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    load.abort();
    browser.finish().await;
    service.finish(&cluster).await;
    cluster.shutdown().await.expect("an end");
}

/// Fifty Pods on every screen. The facts are made up, as no fifty servers are needed to lay out a page.
#[tokio::test(flavor = "multi_thread")]
async fn has_room_for_fifty_pods() {
    let Some(browser) = Browser::start().await else { return };
    // No Pod: the name server that it is told of does not exist.
    let service = Service::start("postgres://user:secret-word@db.example/app?nameservers=127.0.0.1:9").await;
    let facts = r#"(() => {
        let round = 0;
        const pods = () => Array.from({ length: 50 }, (_, i) => ({
          addr: `10.77.0.${i + 10}`, pod: `postgresql-sfs-${i}`, state: ["healthy", "healthy", "ejected", "probing", "draining", "fenced"][i % 6],
          role: i ? "standby" : "primary", lag_bytes: i ? i * 1000 : null, open: 8, idle: 5, in_use: 3, waiting: 0, latency_us: 300 + 40 * i,
        }));
        const metrics = () => pods().map((pod, i) => `podpool_endpoint_picks_total{addr="${pod.addr}",pod=""} ${round * (20 + i)}`).join("\n");
        window.fetch = async path => new Response(path === "/metrics" ? metrics() : (round++, JSON.stringify({
          endpoints: pods(), resolve: { age_ms: 1200, ok: true, source: "10.96.0.10:53", errors: 3 } })));
    })()"#;
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": facts })).await;
    browser.go(&format!("http://{}/", service.address())).await;
    for (width, height, scheme) in [(1280, 900, "light"), (1280, 900, "dark"), (360, 800, "light"), (360, 800, "dark")]
    {
        size(&browser, width, height, scheme).await;
        browser
            .until(
                SOON,
                "fifty cards with traffic",
                "return document.querySelectorAll('.many .card').length === 50
            && [...document.querySelectorAll('.part')].every(part => / %/.test(part.textContent))",
            )
            .await;
        assert_readable(&browser, &format!("{scheme}, {width} wide, fifty Pods")).await;
        picture(&browser, &format!("fifty-{scheme}-{width}.png")).await;
    }
    browser.finish().await;
    service.terminate();
    assert_eq!(service.end().await.0.code(), Some(0));
}

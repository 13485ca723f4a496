//! Tests the live page in a real browser.

use std::{path::PathBuf, time::Duration};

use podpool::testkit::Cluster;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    browser::{Browser, SPACE, TAB},
    http::Connection,
    service::{LIMIT, Service},
};

/// Returns a script that returns true if a Pod's card shows this state with its color.
fn shows(addr: &str, state: &str) -> String {
    format!(
        "const card = document.querySelector('.card[data-addr=\"{addr}\"]');
         return card && card.classList.contains('{state}')
             && card.querySelector('.state').textContent.endsWith('{state}')"
    )
}

/// Returns a script that returns the points of a Pod's plot of checkouts.
fn plot(addr: &str) -> String {
    format!("return document.querySelector('.card[data-addr=\"{addr}\"] .picks').getAttribute('points')")
}

/// Script that returns true if three cards show healthy Pods.
const THREE_HEALTHY: &str = "
    const states = [...document.querySelectorAll('.card .state')].map(state => state.textContent);
    return states.join() === '● healthy,● healthy,● healthy'";

/// Script that returns true if every card has ten samples and a share of the checkouts.
const TEN_SAMPLES: &str = "
    return [...document.querySelectorAll('.card')].every(card => {
        const points = card.querySelector('.picks').getAttribute('points').split(' ');
        return points.length >= 10 && / [1-9][0-9]? %/.test(' ' + card.querySelector('.part').textContent);
    })";

const EJECTION_IN_LIST: &str = "
    return [...document.querySelectorAll('#events .bad')].some(line => line.textContent.includes('ejected'))";

/// Script that returns the URLs of all requests to other hosts.
const OTHER_HOSTS: &str = "
    return performance.getEntriesByType('resource').map(entry => entry.name)
        .filter(name => !name.startsWith(location.origin))";

/// Script that returns the number of visible texts, and a list of texts with a contrast below 4.5:1 (WCAG 2.2, 1.4.3).
const CONTRAST: &str = r"
    const luminance = color => {
      const [r, g, b] = color.match(/[\d.]+/g).map(part => {
        const c = Number(part) / 255;
        return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = node => {
      for (; node; node = node.parentElement) {
        const color = getComputedStyle(node).backgroundColor;
        if (!/, 0\)$/.test(color)) return color;
      }
      return 'rgb(255, 255, 255)';
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), low = [];
    let checked = 0;
    for (let node; node = texts.nextNode();) {
      const parent = node.parentElement;
      if (!node.data.trim() || !parent.checkVisibility() || /SCRIPT|STYLE|NOSCRIPT/.test(parent.tagName)) continue;
      const colors = [getComputedStyle(parent).color, background(parent)];
      const [light, dark] = colors.map(luminance).sort((a, b) => b - a);
      const contrast = (light + 0.05) / (dark + 0.05);
      checked++;
      if (contrast < 4.5) low.push(`${node.data.trim()}: ${contrast.toFixed(2)}`);
    }
    return { checked, low };";

/// Script that replaces `fetch` in the page, so that every response describes fifty Pods in all states.
const FIFTY_PODS: &str = r#"(() => {
    let round = 0;
    const states = ["healthy", "healthy", "ejected", "probing", "draining", "fenced"];
    const pods = () => Array.from({ length: 50 }, (_, i) => ({
      addr: `10.77.0.${i + 10}`, pod: `postgresql-sfs-${i}`, state: states[i % 6],
      role: i ? "standby" : "primary", lag_bytes: i ? i * 1000 : null,
      open: 8, idle: 5, in_use: 3, waiting: 0, latency_us: 300 + 40 * i,
    }));
    const label = pod => `podpool_pod="${pod.pod}"`;
    const info = pod => `podpool_pod_info{${label(pod)},server_address="${pod.addr}",server_port="5432"} 1`;
    const checkouts = (pod, i) => `podpool_endpoint_checkouts_total{${label(pod)}} ${round * (20 + i)}`;
    const metrics = () => pods().flatMap((pod, i) => [info(pod), checkouts(pod, i)]).join("\n");
    window.fetch = async path => new Response(path === "/metrics" ? metrics() : (round++, JSON.stringify({
      endpoints: pods(), resolve: { age_ms: 1200, ok: true, source: "10.96.0.10:53", errors: 3 } })));
})()"#;

/// Script that returns true if there are fifty cards in the compact layout, all with traffic.
const FIFTY_CARDS: &str = "
    return document.querySelectorAll('.many .card').length === 50
        && [...document.querySelectorAll('.part')].every(part => / %/.test(part.textContent))";

/// Sends fifty requests per second until the task is aborted, for at most five minutes. Ignores failures.
fn load(service: &Service) -> JoinHandle<()> {
    let address = service.address();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..15_000 {
            tick.tick().await;
            tokio::spawn(async move {
                if let Ok(mut connection) = Connection::open(address).await {
                    let _ = connection.request("GET", "/query?target=any", "").await;
                }
            });
        }
    })
}

/// Saves a screenshot in the folder that the environment variable `PODPOOL_SCREENSHOTS` names, if it is set.
async fn screenshot(browser: &Browser, name: &str) {
    if let Some(directory) = std::env::var_os("PODPOOL_SCREENSHOTS").map(PathBuf::from) {
        std::fs::create_dir_all(&directory).expect("the folder is created");
        let file = directory.join(name);
        std::fs::write(&file, browser.screenshot().await).expect("the file is written");
        println!("{}", file.display());
    }
}

/// Sets the size of the screen and the color scheme.
async fn set_screen(browser: &Browser, width: u32, height: u32, scheme: &str) {
    let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
    browser.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    browser.devtools("Emulation.setEmulatedMedia", scheme).await;
}

/// Verifies that the page is not wider than the screen and that every text has sufficient contrast.
async fn assert_readable(browser: &Browser, screen: &str) {
    let excess = browser.run("return document.scrollingElement.scrollWidth - window.innerWidth").await;
    assert!(excess.as_f64().expect("a number") <= 0.0, "{screen}: the page is {excess} px wider than the screen");
    let found = browser.run(CONTRAST).await;
    assert!(found["checked"].as_u64().expect("a number") > 20, "{screen}: too few texts: {found}");
    assert_eq!(found["low"], json!([]), "{screen}: texts with low contrast");
}

/// Opens the page of a real service with three real Pods, then kills and restarts one of them.
#[tokio::test(flavor = "multi_thread")]
async fn shows_a_pod_fail_and_recover() {
    let Some(browser) = Browser::start().await else { return };
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    // SRV records contain the Pods' names.
    let service = Service::start(&cluster.srv_url()).await;
    service.get_until("/readyz", |response| response.body["usable"] == 3).await;
    let load = load(&service);
    set_screen(&browser, 1280, 900, "light").await;
    browser.navigate(&format!("http://{}/", service.address())).await;
    browser.until(LIMIT, "the page shows three healthy Pods", THREE_HEALTHY).await;

    let killed = cluster.pod(1).address().ip().to_string();
    browser.until(4 * LIMIT, "the page shows ten samples with traffic on every Pod", TEN_SAMPLES).await;
    let before = browser.run(&plot(&killed)).await;
    assert_readable(&browser, "light, 1280 px").await;
    screenshot(&browser, "before.png").await;

    cluster.kill(1).await.expect("the Pod is killed");
    browser.until(LIMIT, "the card of the killed Pod shows `ejected`", &shows(&killed, "ejected")).await;
    browser.until(LIMIT, "the list contains the ejection", EJECTION_IN_LIST).await;
    let marked = "return document.querySelectorAll('#marks path.bad').length";
    browser.until(LIMIT, "the time axis has a mark of the ejection", marked).await;
    let no_checkouts = format!(
        "const points = (() => {{ {} }})();
         return points !== {before} && points.split(' ').at(-1).endsWith(',97.0')",
        plot(&killed)
    );
    browser.until(LIMIT, "the plot of the killed Pod falls to zero", &no_checkouts).await;
    let no_share =
        format!("return document.querySelector('.card[data-addr=\"{killed}\"] .part').textContent.startsWith('0 %')");
    browser.until(Duration::from_secs(30), "the share of the killed Pod is 0 %", &no_share).await;
    screenshot(&browser, "after.png").await;

    set_screen(&browser, 360, 800, "dark").await;
    assert_readable(&browser, "dark, 360 px").await;
    screenshot(&browser, "phone.png").await;
    set_screen(&browser, 1280, 900, "light").await;

    // The first element that the Tab key reaches is the button, which pauses and resumes the page.
    browser.press(&[TAB, SPACE]).await;
    let pressed = "return document.activeElement.id + ' ' + document.activeElement.getAttribute('aria-pressed')";
    assert_eq!(browser.run(pressed).await, "pause true");
    browser.press(&[SPACE]).await;
    assert_eq!(browser.run(pressed).await, "pause false");

    cluster.start_pod(1).await.expect("the Pod starts");
    browser.until(LIMIT, "the card of the Pod shows `healthy`", &shows(&killed, "healthy")).await;

    assert_eq!(browser.run(OTHER_HOSTS).await, json!([]), "the page sent requests to other hosts");
    let errors: Vec<Value> = browser.console().await.into_iter().filter(|line| line["level"] == "SEVERE").collect();
    assert!(errors.is_empty(), "errors in the console: {errors:?}");
    load.abort();
    browser.close().await;
    service.stop(&cluster).await;
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_pods_are_readable_on_every_screen() {
    let Some(browser) = Browser::start().await else { return };
    // The service finds no Pods, because its name server does not exist. The page gets its data from FIFTY_PODS.
    let service = Service::start("postgres://user:secret-word@db.example/app?nameservers=127.0.0.1:9").await;
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": FIFTY_PODS })).await;
    browser.navigate(&format!("http://{}/", service.address())).await;
    for (width, height, scheme) in [(1280, 900, "light"), (1280, 900, "dark"), (360, 800, "light"), (360, 800, "dark")]
    {
        set_screen(&browser, width, height, scheme).await;
        browser.until(LIMIT, "the page shows fifty cards with traffic", FIFTY_CARDS).await;
        assert_readable(&browser, &format!("{scheme}, {width} px, fifty Pods")).await;
        screenshot(&browser, &format!("fifty-{scheme}-{width}.png")).await;
    }
    browser.close().await;
    service.terminate();
    assert_eq!(service.exit().await.0.code(), Some(0));
}

//! The page's script in a real browser: tables sort, charts show values under the pointer, the theme switches.
//!
//! Needs chromium, which CI installs; where there is none nothing can be tried, and that is said.

mod common;

use heaplab_reports::{ReportOptions, write_report};
use std::process::Command;

/// Put at the end of the page: uses it as a reader would and writes down what happened.
const READER: &str = r#"<script>
(function () {
  var said = [];
  var table = document.querySelector('table.sort');
  function names() { return Array.from(table.tBodies[0].rows).map(function (r) { return r.cells[0].textContent.replace('★', '').trim().split(' ')[0]; }).join(' '); }
  function click(column) { table.tHead.rows[0].cells[column].querySelector('button').click(); }
  said.push('first: ' + names());
  click(1); said.push('up: ' + names());
  click(1); said.push('down: ' + names() + ' ' + table.tHead.rows[0].cells[1].getAttribute('aria-sort'));
  click(0); said.push('names: ' + names());
  document.querySelectorAll('figure[data-hover]').forEach(function (figure) {
    var svg = figure.querySelector('svg'), box = svg.getBoundingClientRect(), tip = figure.querySelector('.tip');
    svg.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + 0.6 * box.width, clientY: box.top + 0.5 * box.height }));
    said.push('tip: ' + !tip.hidden + ' ' + tip.textContent.replace(/\n/g, ' / '));
    svg.dispatchEvent(new PointerEvent('pointerleave'));
    said.push('gone: ' + tip.hidden);
  });
  var theme = document.getElementById('theme'), ink = function () { return getComputedStyle(document.body).backgroundColor; };
  var before = ink(); theme.click(); said.push('theme: ' + (ink() !== before)); theme.click(); said.push('back: ' + (ink() === before));
  var list = document.createElement('pre'); list.id = 'said'; list.textContent = said.join('\n'); document.body.appendChild(list);
})();
</script></body>"#;

#[test]
fn the_page_is_used_in_a_browser() {
    if Command::new("chromium").arg("--version").output().is_err() {
        eprintln!("chromium is not installed; `apt install chromium` lets this test try the page");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let result = common::single();
    write_report(&result, folder.path(), &ReportOptions::default()).unwrap();
    let page = folder.path().join("report.html");
    let text = std::fs::read_to_string(&page).unwrap();
    std::fs::write(&page, text.replace("</body>", READER)).unwrap();
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("browser").display()
        ))
        .args(["--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = dom
        .split_once("<pre id=\"said\">")
        .and_then(|(_, rest)| rest.split_once("</pre>"))
        .map(|(said, _)| said.to_owned())
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    // Sorted by time: 38.1 x (0.91, 0.90, 0.995, 1); the row that failed stays last in every order.
    for wanted in [
        "first: system jemalloc mimalloc spanalloc libfoo.so",
        "up: mimalloc jemalloc spanalloc system libfoo.so",
        "down: system spanalloc jemalloc mimalloc libfoo.so descending",
        "names: jemalloc mimalloc spanalloc system libfoo.so",
        "tip: true",
        "live",
        "gone: true",
        "theme: true",
        "back: true",
    ] {
        assert!(said.contains(wanted), "'{wanted}' is missing in\n{said}");
    }
    assert!(
        !said.contains("tip: false") && !said.contains("gone: false"),
        "{said}"
    );
}

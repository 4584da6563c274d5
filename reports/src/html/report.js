(function () {
  'use strict';
  // Everything works without this script; it sorts tables, switches the theme and shows values in charts.
  var root = document.documentElement;
  var theme = document.getElementById('theme');
  theme.hidden = false;
  theme.addEventListener('click', function () {
    var dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
    root.dataset.theme = dark ? 'light' : 'dark';
  });

  document.querySelectorAll('table.sort').forEach(function (table) {
    var heads = table.tHead.rows[0].cells;
    Array.prototype.forEach.call(heads, function (head, column) {
      var button = document.createElement('button');
      button.textContent = head.textContent;
      head.textContent = '';
      head.appendChild(button);
      button.addEventListener('click', function () {
        var up = head.getAttribute('aria-sort') !== 'ascending';
        Array.prototype.forEach.call(heads, function (h) { h.removeAttribute('aria-sort'); });
        head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
        var rows = Array.prototype.slice.call(table.tBodies[0].rows);
        var key = function (row) {
          // Failed rows have one wide field: they stay last in both orders.
          var cell = row.cells[column];
          if (!cell || (row.cells[1] && row.cells[1].classList.contains('failed'))) { return null; }
          return cell.dataset.sort !== undefined ? (cell.dataset.sort === '' ? null : +cell.dataset.sort) : cell.textContent.replace('★', '').trim();
        };
        rows.sort(function (a, b) {
          var x = key(a), y = key(b);
          if (x === null || y === null) { return (x === null) - (y === null); }
          var order = typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
          return up ? order : -order;
        });
        rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
      });
    });
  });

  document.querySelectorAll('figure[data-hover]').forEach(function (figure) {
    var svg = figure.querySelector('svg');
    var h = JSON.parse(figure.dataset.hover);
    var view = svg.viewBox.baseVal;
    var tip = document.createElement('div');
    tip.className = 'tip';
    tip.hidden = true;
    figure.appendChild(tip);
    svg.addEventListener('pointerleave', function () { tip.hidden = true; });
    svg.addEventListener('pointermove', function (event) {
      var box = svg.getBoundingClientRect();
      var px = (event.clientX - box.left) * view.width / box.width;
      var share = (px - h.px[0]) / (h.px[1] - h.px[0]);
      if (share < 0 || share > 1) { tip.hidden = true; return; }
      var x = h.x[2] ? h.x[0] * Math.pow(h.x[1] / h.x[0], share) : h.x[0] + (h.x[1] - h.x[0]) * share;
      var lines = h.series.map(function (s) {
        var best = null;
        s[1].forEach(function (p) { if (best === null || Math.abs(p[0] - x) < Math.abs(best[0] - x)) { best = p; } });
        return s[0] + '  ' + (best === null ? '-' : Number(best[1].toPrecision(3)));
      });
      var head = h.x[2] ? (100 * (1 - 1 / x)).toPrecision(5) + ' %' : h.x_label + ' ' + Math.round(x).toLocaleString('en');
      var unit = h.x[2] ? 'ns' : h.y_label;
      tip.textContent = head + '  (' + unit + ')\n' + lines.join('\n');
      tip.hidden = false;
      // Within the figure, whatever part of a wide chart is scrolled into it.
      var frame = figure.getBoundingClientRect();
      var left = event.clientX - frame.left + 14;
      tip.style.left = Math.max(0, Math.min(left, frame.width - tip.offsetWidth)) + 'px';
      tip.style.top = (event.clientY - frame.top + 12) + 'px';
    });
  });
})();

#!/usr/bin/env bash
# Writes the inputs of the recorded and validated programs into a folder: load.py, load.sql, unit.ii. Fixed seeds: the
# same files on every machine, but for the standard library's headers in unit.ii.
set -euo pipefail
work=${1:?usage: inputs.sh FOLDER}

cat >"$work/load.py" <<'PY'
import json, random
random.seed(20)
records = [
    {
        "id": i,
        "name": "".join(random.choice("abcdefghij") for _ in range(random.randint(3, 40))),
        "tags": [random.choice(["red", "green", "blue", "grey"]) for _ in range(random.randint(0, 6))],
        "position": {"x": random.random(), "y": random.random()},
    }
    for i in range(12000)
]
text = json.dumps(records)
for _ in range(3):
    table = {r["name"]: r for r in json.loads(text)}
print(len(table))
PY

python3 - >"$work/load.sql" <<'PY'
import random
random.seed(21)
print("PRAGMA cache_size=-8000; CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, v BLOB); CREATE INDEX tk ON t(k); BEGIN;")
for i in range(40000):
    print(f"INSERT INTO t VALUES({i}, 'key{random.randrange(10**6)}', randomblob({random.choice([10, 40, 200, 900])}));")
print("COMMIT;")
for i in range(1000):
    print(f"SELECT count(*), sum(length(v)) FROM t WHERE k BETWEEN 'key{random.randrange(10**6)}' AND 'key{random.randrange(10**6)}' LIMIT 5;")
    if i % 4 == 0:
        print(f"DELETE FROM t WHERE id % 997 = {i % 997};")
print("SELECT k, group_concat(length(v)) FROM t GROUP BY substr(k,1,5) ORDER BY 2 LIMIT 100;")
PY

cat >"$work/unit.cpp" <<'CPP'
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>
struct Node { std::map<std::string, std::vector<int>> table; std::unique_ptr<Node> next; };
int run(const std::vector<std::string>& words) {
    std::unordered_map<std::string, std::function<int(int)>> actions;
    Node head;
    for (const auto& word : words) {
        head.table[word.substr(0, word.find_first_of("0123456789"))].push_back(static_cast<int>(word.size()));
        actions[word] = [n = word.size()](int x) { return x + static_cast<int>(n); };
    }
    int sum = 0;
    for (auto& [key, values] : head.table) { std::sort(values.begin(), values.end()); for (int v : values) sum += actions[key] ? actions[key](v) : v; }
    return sum;
}
CPP
g++ -E -P -D_GNU_SOURCE "$work/unit.cpp" -o "$work/unit.ii"

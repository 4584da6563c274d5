#!/usr/bin/env bash
# Writes the inputs of the validated programs that workloads/traces/inputs.sh does not write. Fixed seeds: the same files on
# every machine.
set -euo pipefail
work=${1:?usage: validate-inputs.sh FOLDER}

cat >"$work/words.pl" <<'PL'
use strict; use warnings;
srand(22);
my @text = map { join "", map { chr(97 + int rand 26) } 1 .. 2 + int rand 9 } 1 .. 4000;
my (%count, %next);
my ($last, @old) = ("");
for (1 .. 400_000) {
    my $word = $text[int(rand(63) * rand(63))];
    $count{$word}++;
    push @old, "$last $word" unless $next{"$last $word"};
    push @{ $next{"$last $word"} }, "at $_" if @{ $next{"$last $word"} // [] } < 8;
    $last = $word;
    delete $next{ shift @old } if $_ % 5 == 0;
}
my @top = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print scalar(@top), " ", scalar(keys %next), " ", join(",", @top[0 .. 9]), "\n";
PL

python3 - "$work" <<'PY'
import json, random, sys
work = sys.argv[1]
random.seed(23)
with open(work + "/events.json", "w") as out:
    json.dump([{"id": i, "user": "u%d" % random.randrange(3000), "at": random.random() * 1e6,
                "tags": random.sample(["a", "b", "c", "d", "e", "f"], random.randrange(5)),
                "note": "x" * random.randrange(120)} for i in range(30000)], out)
with open(work + "/book.xml", "w") as out:
    out.write("<book>\n")
    for c in range(300):
        out.write('<chapter id="c%d">\n' % c)
        for p in range(60):
            out.write('<p n="%d" lang="%s">%s <i>%s</i></p>\n' % (p, random.choice(["en", "de", "fr"]),
                      " ".join(random.choice(["lorem", "ipsum", "dolor", "sit", "amet"]) for _ in range(random.randrange(5, 40))),
                      "y" * random.randrange(30)))
        out.write("</chapter>\n")
    out.write("</book>\n")
with open(work + "/graph.dot", "w") as out:
    draw = random.Random(26)
    out.write("digraph g {\n")
    for n in range(1400):
        out.write('n%d [label="node %d\\n%s"];\n' % (n, n, "z" * draw.randrange(20)))
        for _ in range(draw.choice([0, 1, 1, 2])):
            out.write("n%d -> n%d;\n" % (n, min(1399, n + 1 + draw.randrange(30))))
    out.write("}\n")
with open(work + "/log.txt", "w") as out:
    for i in range(160000):
        out.write("%d.%06d %s host-%d request /%s/%d took %d ms\n" % (i, random.randrange(10**6),
                  random.choice(["INFO", "WARN", "ERROR"]), random.randrange(40),
                  random.choice(["api", "static", "login", "search"]), random.randrange(10**5), random.randrange(900)))
PY

cat >"$work/pool.py" <<'PY'
import json, random
from concurrent.futures import ThreadPoolExecutor
def work(seed):
    draw = random.Random(seed)
    table = {}
    for i in range(15000):
        table[draw.randrange(8000)] = {"k": "v" * draw.randrange(200), "n": [draw.random() for _ in range(4)]}
    return len(json.dumps(list(table.values())))
with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(work, range(8))))
PY

cat >"$work/tables.lua" <<'LUA'
math.randomseed(25)
local old
for round = 1, 6 do
    local words, index = {}, {}
    for i = 1, 60000 do
        local word = string.format("%x-%d", math.random(1 << 24), i)
        words[i] = { name = word, size = #word, next = words[i - 1] }
        if i % 3 == 0 then index[word] = { i, word:rep(math.random(6)) } end
    end
    table.sort(words, function(a, b) return a.name < b.name end)
    old = round % 2 == 0 and index or words
end
print(#old)
LUA

cat >"$work/sums.awk" <<'AWK'
{ count[$2]++; split($5, part, "/"); seen[part[2], part[3] % 20000] = seen[part[2], part[3] % 20000] " " $7 }
$2 == "ERROR" { errors[$3, $7] = errors[$3, $7] substr($0, 1, 30) }
END { n = asorti(seen, keys); for (i = 1; i <= n; i++) total += length(seen[keys[i]]); print n, length(errors), total }
AWK

cat >"$work/tables.rb" <<'RUBY'
words = %w[alpha beta gamma delta epsilon zeta eta theta]
random = Random.new(5)
old = nil
6.times do |round|
  rows = (1..40_000).map do |i|
    { id: i, name: "#{words[random.rand(8)]}-#{random.rand(1 << 24).to_s(16)}", tags: Array.new(random.rand(5)) { words[random.rand(8)] * (1 + random.rand(40)) } }
  end
  index = rows.group_by { |row| row[:name][0, 4] }
  joined = index.map { |key, list| [key, list.map { |row| row[:tags].join(",") }.join("\n")] }
  old = round.even? ? joined : rows
end
puts old.length
RUBY

cat >"$work/digits.bc" <<'BC'
scale = 500
define f(n) { if (n < 2) return (1); return (n * f(n - 1)) }
a = 4 * a(1)
for (i = 1; i < 220; i++) { t[i] = f(i) / (a + i); s = s + sqrt(t[i]) }
s
quit
BC

# A repository with some history: many small commits over a tree of files.
mkdir "$work/repo"
(
    cd "$work/repo"
    export GIT_AUTHOR_DATE="2024-01-01T00:00:00Z" GIT_COMMITTER_DATE="2024-01-01T00:00:00Z"
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
    git init -q -b main .
    python3 - <<'PY' | git fast-import --quiet
import random
random.seed(24)
words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
files = {"d%d/f%d.txt" % (i % 20, i): [random.choice(words) for _ in range(200)] for i in range(300)}
for c in range(600):
    print("commit refs/heads/main\ncommitter a <a@example.org> %d +0000\ndata 6\nchange" % (1700000000 + c))
    for name in (files if c == 0 else random.sample(sorted(files), 6)):
        lines = files[name]
        for _ in range(8):
            lines[random.randrange(len(lines))] = random.choice(words) + str(random.randrange(1000))
        text = "\n".join(lines) + "\n"
        print("M 100644 inline %s\ndata %d\n%s" % (name, len(text), text))
PY
)

python3 - "$work" <<'PY'
import random, sys
work = sys.argv[1]
random.seed(25)
with open(work + "/many.mk", "w") as out:
    out.write("FLAGS = -O2 -Wall\nOBJECTS =\n")
    for n in range(6000):
        needs = " ".join("part%d.o" % random.randrange(n) for _ in range(min(n, random.randrange(6))))
        out.write("OBJECTS += part%d.o\npart%d.o: FLAGS += -DPART=%d\npart%d.o: %s\n" % (n, n, n, n, needs))
        out.write("\tcc $(FLAGS) -c $(patsubst %%.o,%%.c,$@) -o $@ # $(words $^) of them\n")
    out.write("all: $(OBJECTS)\n\t@echo $(words $(sort $(OBJECTS)))\n")

words = ["storage", "block", "page", "heap", "free", "list", "span", "class", "thread", "cache"]
with open(work + "/document.ms", "w") as out:
    for chapter in range(400):
        out.write(".NH 1\nChapter %d\n" % chapter)
        for _ in range(12):
            out.write(".PP\n")
            for _ in range(6):
                out.write(" ".join(random.choice(words) for _ in range(14)) + ",\n")
            out.write("and so\n.I on .\n")

with open(work + "/objects.pdf", "wb") as out:
    places = []
    def put(text):
        places.append(out.tell())
        out.write(("%d 0 obj\n%s\nendobj\n" % (len(places), text)).encode())
    out.write(b"%PDF-1.4\n")
    put("<< /Type /Catalog /Pages 2 0 R /Extra [ %s ] >>" % " ".join("%d 0 R" % n for n in range(4, 40001)))
    put("<< /Type /Pages /Kids [ 3 0 R ] /Count 1 >>")
    put("<< /Type /Page /Parent 2 0 R /MediaBox [ 0 0 100 100 ] >>")
    for n in range(4, 40001):
        put("<< /Name (%s) /Next %d 0 R /Numbers [ %s ] >>" % (
            random.choice(words) * random.randrange(1, 6), 4 + (n * 7919) % 39997, " ".join(str(random.randrange(9999)) for _ in range(random.randrange(12)))))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1))
    for place in places:
        out.write(b"%010d 00000 n \n" % place)
    out.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(places) + 1, start))
PY

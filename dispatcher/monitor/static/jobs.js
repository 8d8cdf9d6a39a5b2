// Keeps the jobs pages fresh: fetches the page anew and swaps its live parts. Changes nothing else.
(function () {
    "use strict";

    var EVERY = 3000, PATIENCE = 10000;
    var timer = null, loading = false;
    var dot = document.getElementById("jobs-dot");
    var word = document.getElementById("jobs-refresh");

    function parts(of) {
        return Array.from(of.querySelectorAll("[data-live]"));
    }

    function holding(element) {
        return parts(document).find(function (part) { return part.contains(element); });
    }

    function say(text, mood) {
        dot.className = "status-dot" + (mood ? " status-dot-" + mood : "");
        if (word.textContent !== text) {
            word.textContent = text;
        }
    }

    function readAt() {
        var read = document.querySelector("[data-read-at]");
        return read ? read.getAttribute("data-read-at").slice(11) + " UTC" : "";
    }

    function fresh() {
        var at = readAt();
        say(at ? "Live, read at " + at : "Live, every 3 s", "live");
    }

    // Whoever marks text, to copy it, keeps it.
    function marked() {
        var selection = document.getSelection();
        return !selection.isCollapsed && holding(selection.anchorNode);
    }

    // Where the focus was: the same link or button of the same row.
    function keyOf(element) {
        var row = element.closest("[data-job], [data-provider]"), name = "";
        if (row) {
            name = row.getAttribute("data-job") || row.getAttribute("data-provider");
        }
        return [name, element.tagName, element.getAttribute("href"), element.getAttribute("data-copy")].join("\n");
    }

    function focusAgain(part, key) {
        var same = Array.from(part.querySelectorAll("a, button")).find(function (element) {
            return keyOf(element) === key;
        });
        if (same) {
            same.focus({preventScroll: true});
        }
    }

    function swapPart(old, found) {
        var fresh = document.importNode(found, true), active = document.activeElement;
        var key = old.contains(active) ? keyOf(active) : null;
        var sideways = Array.from(old.querySelectorAll(".table-responsive"), function (box) {
            return [box.scrollLeft, box.scrollTop];
        });
        old.replaceWith(fresh);
        fresh.querySelectorAll(".table-responsive").forEach(function (box, at) {
            box.scrollTo.apply(box, sideways[at] || [0, 0]);
        });
        if (key !== null) {
            focusAgain(fresh, key);
        }
    }

    function swap(found) {
        var page = window.scrollY;
        parts(document).forEach(function (old) {
            var name = old.getAttribute("data-live");
            var one = found.find(function (part) { return part.getAttribute("data-live") === name; });
            if (one && one.innerHTML !== old.innerHTML) {
                swapPart(old, one);
            }
        });
        window.scrollTo({left: window.scrollX, top: page, behavior: "instant"});
    }

    // A page that says that something is not there is an answer too; one that says that Redis is
    // away is not: what was read before stands.
    function take(response) {
        if (response.redirected || response.status === 401 || response.status === 403) {
            throw new Error("please sign in again");
        }
        if (!response.ok && response.status !== 404) {
            throw new Error(response.status === 503 ? "Redis does not answer" : "status " + response.status);
        }
        return response.text();
    }

    function put(text) {
        var found = parts(new DOMParser().parseFromString(text, "text/html"));
        if (!found.length) {
            throw new Error("unexpected answer");
        }
        if (!marked()) {
            swap(found);
        }
        fresh();
    }

    function load() {
        var stop = new AbortController();
        var patience = window.setTimeout(function () { stop.abort(); }, PATIENCE);
        loading = true;
        window.fetch(window.location.href, {cache: "no-store", credentials: "same-origin", signal: stop.signal})
            .then(take)
            .then(put)
            .catch(function (error) {
                var why = error instanceof TypeError || error.name === "AbortError" ? "Flower does not answer" : error.message;
                say("Not refreshed: " + why + "; trying again", "error");
            })
            .finally(function () {
                window.clearTimeout(patience);
                loading = false;
                plan();
            });
    }

    function plan() {
        window.clearTimeout(timer);
        if (!document.hidden && !loading) {
            timer = window.setTimeout(load, EVERY);
        }
    }

    document.addEventListener("visibilitychange", function () {
        window.clearTimeout(timer);
        if (!document.hidden && !loading) {
            load();
        }
    });

    function copy(text) {
        if (navigator.clipboard && window.isSecureContext) {
            return navigator.clipboard.writeText(text);
        }
        return Promise.reject(new Error("no clipboard"));
    }

    document.addEventListener("click", function (event) {
        var button = event.target.closest("[data-copy]");
        if (!button) {
            return;
        }
        copy(button.getAttribute("data-copy")).then(function () {
            button.classList.add("copied");
        }, function () {
            document.getSelection().selectAllChildren(button.previousElementSibling);
        });
    });

    document.documentElement.classList.add("jobs-script");
    if (document.querySelector(".jobs-sentence-bad")) {
        say("Redis does not answer; trying again", "error");
    } else {
        fresh();
    }
    plan();
}());

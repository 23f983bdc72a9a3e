"""The server's page in a browser, in the words of its user."""

from __future__ import annotations

from xclip_runtime.demo import DEMO_VIDEO

PATIENCE_MS = 60_000


class Page:
    """A tab. What it has no method for is asked of Playwright's page."""

    def __init__(self, browser, address, **options):
        self.faults: list[str] = []
        """Exceptions, and what the content security policy stopped."""
        self.foreign: list[str] = []
        """Requests to other hosts."""
        self.requests: list[str] = []
        """Method and path of each request to the API."""
        granted = ["clipboard-read", "clipboard-write"]
        self._page = browser.new_page(permissions=granted, reduced_motion="reduce", **options)
        self._address = address
        self._page.set_default_timeout(PATIENCE_MS)
        self._page.on("pageerror", lambda error: self.faults.append(str(error)))
        self._page.on("console", self._listen)
        self._page.on("request", self._note)

    def __getattr__(self, name):
        return getattr(self._page, name)

    def _listen(self, message):
        if "Content Security Policy" in message.text:
            self.faults.append(message.text)

    def _note(self, request):
        if not request.url.startswith((self._address, "data:", "blob:")):
            self.foreign.append(request.url)
        if "/v1/" in request.url:
            self.requests.append(f"{request.method} {request.url.removeprefix(self._address).partition('?')[0]}")

    def upload(self, path=DEMO_VIDEO):
        self.set_input_files("#file", path)
        self.wait("#strip img")

    def wait(self, selector, state="visible"):
        self._page.locator(selector).first.wait_for(state=state)

    def wait_for_text(self, selector, text):
        self._page.locator(selector, has_text=text).first.wait_for()

    def wait_until(self, expression):
        # Playwright's own waiting for expressions is stopped by the content security policy.
        while not self.evaluate(expression):
            self.wait_for_timeout(20)

    def text(self, selector):
        return self._page.locator(selector).first.inner_text()

    def texts(self, selector):
        return self._page.locator(selector).all_inner_texts()

    def labels(self):
        return self.texts("#bars .label")

    def hidden(self, selector):
        return self._page.locator(selector).first.is_hidden()

    def copied(self, kind):
        """Return what the button of a kind, "curl" or "python", puts into the clipboard."""
        self.click(f"#copy-{kind}")
        self.wait_for_text("#copied", "Copied")
        return self.evaluate("navigator.clipboard.readText()")

"""A small stand-in of the HTTP API of Weights & Biases: it keeps runs, files and artifacts, and can be made to fail."""

import base64
import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "someone"


@dataclass
class Backend:
    """What the server was told.

    ``refuses`` says which requests fail, and ``status`` how; a status of 0 cuts the connection without an answer.
    """

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    exit_codes: dict[str, int] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    used: list[tuple[str, str]] = field(default_factory=list)  # (run, artifact)
    client_ids: dict[str, str] = field(default_factory=dict)  # wandb's own id of an artifact -> the server's
    views: list[dict[str, Any]] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)  # path -> content
    operations: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # what was asked for that this stand-in does not know
    refuses: Callable[[str], bool] = lambda operation: False
    status: int = 404
    url: str = ""

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The ``data`` of a GraphQL response."""
        handler = getattr(self, f"on_{operation}", None)
        if handler is None:
            self.unknown.append(operation)
            return {}
        return handler(given.get("input", given))

    def on_Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": {**viewer, "admin": False, "apiKeys": {"edges": []}}}

    on_GetViewer = on_GetDefaultEntity = on_Viewer

    def on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["name"]
        if name not in self.runs:
            return {
                "model": {"id": "p", "name": given["project"], "entity": {"id": "e", "name": ENTITY}, "bucket": None}
            }
        lines = [json.dumps(line) for line in self.history.get(name, [])]
        bucket = {
            "id": name, "name": name, "displayName": self.runs[name]["displayName"], "historyLineCount": len(lines),
            "summaryMetrics": json.dumps(self.summary.get(name, {})), "logLineCount": 0, "eventsLineCount": 0,
            "historyTail": json.dumps(lines[-1:]), "eventsTail": "[]", "config": self.runs[name]["config"] or "{}",
            "tags": [], "notes": "", "wandbConfig": "{}",
        }  # fmt: skip
        return {"model": {"id": "p", "name": "p", "entity": {"id": "e", "name": ENTITY}, "bucket": bucket}}

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["name"]
        inserted = name not in self.runs
        self.runs[name] = {
            **self.runs.get(name, {}),
            **{key: value for key, value in given.items() if value is not None},
        }
        self.runs[name].setdefault("config", None)
        entity = {"id": "e", "name": ENTITY}
        bucket = {
            "id": name, "name": name, "displayName": given.get("displayName"), "description": None,
            "config": given["config"], "sweepName": None, "historyLineCount": len(self.history.get(name, [])),
            "project": {"id": "p", "name": given["project"], "entity": entity},
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": self.place(f"{given['run']}/{name}")} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        names = given.get("artifactCollectionNames") or [given.get("artifactCollectionName")]
        name = names[0]
        known = self.artifacts.get(name)
        same = known is not None and known["digest"] == given["digest"]
        version = 0 if known is None else known["version"] + (not same)
        creator = known["run"] if known is not None and same else given.get("runName")
        self.artifacts[name] = {
            "type": given["artifactTypeName"], "digest": given["digest"], "version": version, "files": {},
            "aliases": [alias["alias"] for alias in given.get("aliases") or []], "run": creator,
        }  # fmt: skip
        self.client_ids[given["clientID"]] = name
        artifact = {
            "id": name, "state": "PENDING", "artifactSequence": {"id": f"s-{name}", "latestArtifact": None},
        }  # fmt: skip
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "name": given["name"], "displayName": given["name"], "uploadHeaders": [],
                "uploadUrl": self.place(f"{given['artifactID']}/manifest") if given.get("includeUpload") else None,
                "artifact": {"id": given["artifactID"]}}  # fmt: skip
        return {"createArtifactManifest": {"artifactManifest": {"id": f"m-{given['artifactID']}", "file": file}}}

    def on_CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        specifications = given.get("artifactFiles") or given.get("input", {}).get("artifactFiles")
        edges = []
        for spec in specifications:
            owner = spec["artifactID"]
            node = {
                "id": spec["name"], "name": spec["name"], "displayName": spec["name"], "uploadHeaders": [],
                "uploadUrl": self.place(f"{owner}/{spec['name']}"), "storagePath": f"{owner}/{spec['name']}",
                "artifact": {"id": owner}, "uploadMultipartUrls": None,
            }  # fmt: skip
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[given["artifactID"]]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}

    def on_UseArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.used.append((given["runName"], given["artifactID"]))
        artifact = {"id": given["artifactID"], "digest": "", "description": None, "state": "COMMITTED"}
        return {"useArtifact": {"artifact": artifact}}

    def on_ClientIDMapping(self, given: dict[str, Any]) -> dict[str, Any]:
        server_id = base64.b64encode(self.client_ids[given["clientID"]].encode()).decode()
        return {"clientIDMapping": {"serverID": server_id}}

    def on_ProjectInternalId(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"internalId": "cHJvamVjdA=="}}

    def on_GetProjects(self, given: dict[str, Any]) -> dict[str, Any]:
        project = {"__typename": "Project", "id": "p", "name": "snnbench", "entityName": ENTITY, "user": None,
                   "createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False}  # fmt: skip
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": project}], "pageInfo": page}}

    def on_upsertView(self, given: dict[str, Any]) -> dict[str, Any]:
        self.views.append(given)
        project = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
        view = {
            "id": f"v{len(self.views)}", "type": given["type"], "name": given["name"], "description": "",
            "displayName": given["displayName"], "project": project, "spec": given["spec"], "updatedAt": None,
        }  # fmt: skip
        return {"upsertView": {"view": view, "inserted": True}}

    on_UpsertView2 = on_upsertView

    def on_ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def on_ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:
        known = self.artifacts[given["id"]]
        sequence = {"__typename": "ArtifactSequence", "name": given["id"], "project": None}
        return {"artifact": {
            "__typename": "Artifact", "id": given["id"], "artifactSequence": sequence, "versionIndex": known["version"],
            "artifactType": {"name": known["type"]}, "description": None, "metadata": "{}", "ttlDurationSeconds": -2,
            "ttlIsInherited": True, "tags": [], "historyStep": None, "state": "COMMITTED", "size": 0, "fileCount": 1,
            "digest": known["digest"], "digestAlgorithm": None, "commitHash": None, "createdAt": "2026-01-01T00:00:00Z",
            "updatedAt": None, "aliases": [],
        }}  # fmt: skip

    def on_ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def place(self, path: str) -> str:
        """Where a file is to be put."""
        return f"{self.url}/storage/{path}"

    def stream(self, run: str, files: dict[str, Any], content: dict[str, Any]) -> None:
        """The stream of a run: history, summary, and at the end its exit code."""
        for line in files.get("wandb-history.jsonl", {}).get("content", []):
            self.history.setdefault(run, []).append(json.loads(line))
        for line in files.get("wandb-summary.json", {}).get("content", []):
            self.summary[run] = json.loads(line)
        if "exitcode" in content:
            self.exit_codes[run] = content["exitcode"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend: Backend

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._reply(200, self.backend.stored.get(self.path.removeprefix("/storage/"), b"{}"))

    def do_PUT(self) -> None:
        content = self._content()
        if self.backend.refuses("storage"):
            return self._refuse()
        self.backend.stored[self.path.removeprefix("/storage/")] = content
        return self._reply(200, b"")

    def do_POST(self) -> None:
        content = json.loads(self._content() or b"{}")
        stream = self.path.endswith("/file_stream")
        operation = "file_stream" if stream else content.get("operationName") or _name(content["query"])
        self.backend.operations.append(operation)
        if self.backend.refuses(operation):
            return self._refuse()
        if stream:
            self.backend.stream(self.path.split("/")[-2], content.get("files") or {}, content)
            return self._reply(200, b"{}")
        data = self.backend.answer(operation, content.get("variables") or {})
        return self._reply(200, json.dumps({"data": data}).encode())

    def _content(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def _refuse(self) -> None:
        if self.backend.status == 0:
            self.close_connection = True
            self.connection.close()
        else:
            self._reply(self.backend.status, b'{"errors": [{"message": "refused"}]}')

    def _reply(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _name(query: str) -> str:
    """The operation's name in a GraphQL text."""
    words = query.replace("(", " ").replace("{", " ").split()
    return words[1] if len(words) > 1 else ""


class Server(ThreadingHTTPServer):
    """The stand-in, listening on a free port of this machine until :meth:`stop`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.backend = Backend()
        super().__init__(("127.0.0.1", 0), type("Handler", (_Handler,), {"backend": self.backend}))
        self.backend.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut on purpose is no news."""

    def stop(self) -> None:
        """Close the port: from now on connections are refused."""
        self.shutdown()
        self.server_close()

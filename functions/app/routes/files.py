"""Files of a project, for its gateways: they know from the client's key which project it is (docs/gateway.md)."""

from typing import Annotated

from fastapi import APIRouter, Query

from functions.app.openai_wire import Deleted, File, FileContent, FileOrder, Listing, NewFile
from functions.app.routes.common import Id, Limit
from functions.app.routes.control import Gateway
from functions.app.services import files as service
from functions.app.wire import Part

router = APIRouter(prefix="/gateway/projects/{project_id}/files", tags=["gateway"])
After = Annotated[Part | None, Query()]
OldestFirst = Annotated[bool, Query()]
Purpose = Annotated[str | None, Query(max_length=64)]


@router.post("", status_code=201)
def create_file(project_id: Part, body: FileOrder, _: Gateway) -> NewFile:
    """Order a file: its bytes go to the presigned PUT, then the file is said to have arrived."""
    return service.order(project_id, body)


@router.post("/{file_id}/arrived")
def file_arrived(project_id: Part, file_id: Id, _: Gateway) -> File:
    """The bytes were put: clients see the file from now on."""
    return service.arrived(project_id, file_id)


@router.get("")
def list_files(
    project_id: Part,
    _: Gateway,
    limit: Limit = 100,
    after: After = None,
    oldest_first: OldestFirst = False,
    purpose: Purpose = None,
) -> Listing[File]:
    """Files of the project, newest first."""
    return service.page_of(project_id, limit, after, oldest_first, purpose)


@router.get("/{file_id}")
def get_file(project_id: Part, file_id: Id, _: Gateway) -> File:
    """One file."""
    return service.get(project_id, file_id)


@router.get("/{file_id}/content")
def get_file_content(project_id: Part, file_id: Id, _: Gateway) -> FileContent:
    """Presigned GETs of the file's bytes."""
    return service.content(project_id, file_id)


@router.delete("/{file_id}")
def delete_file(project_id: Part, file_id: Id, _: Gateway) -> Deleted:
    """Forget the file and its bytes."""
    return service.delete(project_id, file_id)

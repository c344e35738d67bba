from ppgs.api import Plan as Plan
from ppgs.api import PpgsError as PpgsError
from ppgs.api import Run as Run
from ppgs.api import Schedule as Schedule
from ppgs.api import Stage as Stage
from ppgs.api import find_run as find_run
from ppgs.api import find_runs as find_runs
from ppgs.api import plan_schedule as plan_schedule
from ppgs.api import predict as predict
from ppgs.api import read_events as read_events
from ppgs.api import resume as resume
from ppgs.api import train as train
from ppgs.curriculum import Curriculum as Curriculum

__version__: str

"""Makes an IPython kernel that was started elsewhere, and that nobody has used yet, one that was started in `cwd`.

The search path for modules begins with the working directory, whichever that is; IPython and `multiprocessing` remember
where they began. Fails, and the kernel stays where it is, if anything of the user's ran when it started: nobody knows
what that made of where it was.
"""
import glob
import os
import sys

app = shell.kernel.parent
settings = sys.modules["IPython.core.shellapp"]
folders = [os.path.join(it, "startup") for it in (*settings.ENV_CONFIG_DIRS, *settings.SYSTEM_CONFIG_DIRS)]
files = [file for it in (app.profile_dir.startup_dir, *folders) for file in glob.glob(os.path.join(it, "*.*py"))]
ran = [*files, *app.exec_lines, *app.exec_files, *app.extensions, *getattr(app, "extra_extensions", ())]
if ran or app.pylab or app.matplotlib or app.exec_PYTHONSTARTUP and os.environ.get("PYTHONSTARTUP"):
    raise RuntimeError("code of the user ran when it started")

os.chdir(cwd)
shell.starting_dir = os.getcwd()
directories = shell.history_manager.dir_hist
directories[0] = type(directories[0])(os.getcwd())
if "multiprocessing.process" in sys.modules:
    sys.modules["multiprocessing.process"].ORIGINAL_DIR = os.getcwd()

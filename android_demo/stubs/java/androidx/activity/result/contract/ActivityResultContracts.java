// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.activity.result.contract;

import android.net.Uri;

public final class ActivityResultContracts {
    private ActivityResultContracts() {}

    public static final class RequestPermission extends ActivityResultContract<String, Boolean> {}

    public static class GetContent extends ActivityResultContract<String, Uri> {}
}
